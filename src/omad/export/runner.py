"""Runs one agent's policy from its folder. Needs Python and NumPy, nothing else.

    policy = Policy("agent_0")           # checks the files and 16 test vectors
    policy.reset()                       # at the start of every episode
    action = policy.act(observation)     # raw observation in, action in the env's own box out

`python runner.py` checks the folder and measures itself. `python runner.py --pipe` answers requests on standard input:
`R` begins an episode; `A`, a little-endian uint32 n and n observations as float32 give n actions as float32.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np

FORMAT, F = 1, np.float32
A, B, ONE = (np.asarray(x, F) for x in (0.044715 * 0.7978845608028654, 0.7978845608028654, 1))  # quicker than scalars
UNIT, WIDE = ([np.asarray(x, F) for x in (-bound, bound)] for bound in (1, 10))


class BadPolicy(ValueError):
    """The folder, or what was given to it, cannot be used; the message says what and why."""


def read_tensors(data):
    """Read a safetensors file: 8 bytes of header length, a JSON header, then the numbers."""
    start, end, found = 8 + int.from_bytes(data[:8], "little"), 0, {}
    header, body = json.loads(data[8:start]), data[start:]
    header.pop("__metadata__", None)
    for (first, last), name in sorted((entry["data_offsets"], name) for name, entry in header.items()):
        if header[name]["dtype"] != "F32" or first != end:  # one behind the other, so that none is held twice
            raise BadPolicy(f"policy.safetensors: {name} is not float32, or out of place; export it again.")
        found[name], end = np.frombuffer(body[first:last], "<f4").reshape(header[name]["shape"]).astype(F), last
    return found


def numbers(values):
    """An array of float32; what is no array of real numbers is refused."""
    try:
        found = np.asarray(values)
    except ValueError:
        raise BadPolicy("Rows of unequal length were given; an array of numbers is needed.") from None
    if found.dtype.kind not in "biuf":
        raise BadPolicy(f"A {type(values).__name__} of {found.dtype} was given; an array of real numbers is needed.")
    return found.astype(F, copy=False)


def gelu2(x):
    """Twice the GELU (tanh approximation); the next layer's weights are halved instead."""
    y = x * x
    y *= A
    y += B
    y *= x
    np.tanh(y, y)
    y *= x
    y += x
    return y


def mish(x):
    """Misra's activation, x tanh(log(1 + e^x))."""
    n = (e := np.exp(np.minimum(x, 20.0))) * (e + 2.0)
    return x * (n / (n + 2.0))


def clip(x, bounds):
    """Within bounds; quicker than np.clip."""
    return np.minimum(np.maximum(x, bounds[0]), bounds[1])


ACTIVATIONS = {"gelu": gelu2, "mish": mish, "relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}


class Policy:
    """One agent's policy. Observations may have a leading batch axis; each row then has a history of its own."""

    def __init__(self, folder=None, seed=None):
        folder = Path(folder) if folder is not None else Path(__file__).resolve().parent
        self.rng, self.past = np.random.default_rng(seed), None
        try:
            text, data = ((folder / name).read_bytes() for name in ("policy.json", "policy.safetensors"))
            about = json.loads(text)
        except (OSError, ValueError) as error:
            raise BadPolicy(f"{folder} cannot be read ({error}); export it again.") from None
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise BadPolicy(f"{folder / 'policy.json'} is not of format {FORMAT}; use the runner.py that came with it.")
        rest = json.dumps({key: value for key, value in about.items() if key != "checksum"}, sort_keys=True)
        pairs = ("policy.json", rest.encode(), "checksum"), ("policy.safetensors", data, "tensors_sha256")
        for name, content, due in pairs:
            if hashlib.sha256(content).hexdigest() != about.get(due):
                raise BadPolicy(f"{folder / name} does not match its checksum; restore it from a copy or export again.")
        keys = "agent", "kind", "noise_rows", "obs_dim", "act_dim", "history"
        self.name, self.kind, self.rows, self.obs_dim, self.act_dim, self.history = (about[key] for key in keys)
        self.box = np.asarray([about["action_low"], about["action_high"]], F)
        self.halves = F(0.5) * self.box
        self.normaliser, self.set, self.t = about["normaliser"], about["settings"], read_tensors(data)
        names = self.set["activations"]
        self.layers = [  # activation, weight, bias
            (ACTIVATIONS[name], self.t[f"{layer}.weight"] * F(0.5 if name == "gelu" else 1), self.t[f"{layer}.bias"])
            for name, layer in zip(names, [*(f"hidden.{i}" for i in range(len(names) - 1)), "last"])  # noqa: B905
        ]
        if self.kind == "chain":
            self.keep = F(1) - self.t["step"] / F(self.set["prior_scale"] ** 2)
            self.jump = self.t.get("jump", np.sqrt(F(2) * self.t["step"]))
            self.bounds = [np.asarray(x, F) for x in (-self.set["control_clip"], self.set["control_clip"])]
        if self.kind == "distilled":  # the first step reads noise alone
            self.first = self.t["x.weight"].copy()
            self.first[: self.act_dim] *= F(self.set["prior_scale"])
        worst = np.abs(self.policy(self.t["test.obs"], self.t["test.noise"]) - self.t["test.action"]).max()
        if not worst <= about["tolerance"]:
            raise BadPolicy(f"{self.name}: a test vector is off by {worst:.2g} on this computer; export it again.")

    def reset(self):
        """Begin an episode: forget what was seen."""
        self.past = None

    def act(self, obs, noise=None, explore=True):
        """Raw observation `(obs,)` or `(batch, obs)` -> action in the env's box; noise is drawn here if not given."""
        obs = numbers(obs)
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.obs_dim:
            raise BadPolicy(f"{self.name}: an observation of shape {obs.shape} was given; ({self.obs_dim},) is needed.")
        if not np.isfinite(obs).all():
            where = np.argwhere(~np.isfinite(obs))[0][-1]
            raise BadPolicy(f"{self.name}: entry {where} of the observation is not finite; check the sensor.")
        shape = (*obs.shape[:-1], self.rows, self.act_dim)
        if noise is None:
            noise = self.rng.standard_normal(shape, F) if explore else np.zeros(shape, F)
        elif (noise := numbers(noise)).shape != shape:
            raise BadPolicy(f"{self.name}: noise of shape {noise.shape} was given; {shape} is needed.")
        past = self.past
        if self.history > 1 and past is None:
            past = [np.concatenate([obs, np.zeros((*obs.shape[:-1], self.act_dim), F)], -1)] * (self.history - 1)
        elif past is not None and past[0].shape[:-1] != obs.shape[:-1]:
            raise BadPolicy(f"{self.name}: other rows than before; reset() first, or give all rows of an episode.")
        action = self.policy(obs if past is None else np.concatenate([obs, *past], -1), noise)
        if not np.isfinite(action).all():
            raise BadPolicy(f"{self.name}: the action is not finite; the observation or the noise is far too large.")
        if past is not None:
            self.past = [np.concatenate([obs, action], -1), *past[:-1]]
        return clip((ONE - action) * self.halves[0] + (ONE + action) * self.halves[1], self.box)

    def normalised(self, obs):
        """Observation as the network sees it."""
        if self.normaliser == "running":
            return clip((obs - self.t["norm.mean"]) / self.t["norm.std"], WIDE)
        if self.normaliser == "harl":
            return (obs - obs.mean(-1, keepdims=True)) / np.maximum(obs.std(-1, keepdims=True), F(1e-6))
        return obs

    def net(self, x):
        """All that follows the first layer."""
        for activation, weight, bias in self.layers:
            x = np.dot(activation(x), weight)
            x += bias
        return x

    def policy(self, obs, noise):
        """Observation, frames stacked, and noise `(..., rows, act)` -> action in [-1, 1]."""
        t, s, eps = self.t, self.set, noise if noise.ndim == 2 else noise.swapaxes(0, 1)
        seen = np.dot(self.normalised(obs), t["obs.weight"])
        if self.kind == "gaussian":
            mean, log_std = np.split(self.net(seen + t["time"][0]), 2, -1)
            return np.tanh(mean + np.exp(np.clip(log_std, F(s["log_std_low"]), F(s["log_std_high"]))) * eps[0])
        if self.kind == "deterministic":
            return clip(np.tanh(self.net(seen + t["time"][0])) + F(s["explore_std"]) * eps[0], UNIT)
        projections, x = [seen + row for row in t["time"]], F(s["prior_scale"]) * eps[0]  # first layer: seen and time
        if self.kind == "chain":  # steps of a controlled Ornstein-Uhlenbeck process
            for projection, keep, step, jump, e in zip(projections, self.keep, t["step"], self.jump, eps[1:]):  # noqa: B905
                u = clip(self.net(np.dot(x, t["x.weight"]) + projection), self.bounds)
                x = keep * x + step * u + jump * e
        elif self.kind == "ddpm":  # from noise to what the network takes the action to be
            for k in reversed(range(len(projections))):
                from_x, from_noise, mean_x0, mean_x, std = t["coefficients"][k]
                x0 = clip(from_x * x - from_noise * self.net(x @ t["x.weight"] + projections[k]), UNIT)
                x = mean_x0 * x0 + mean_x * x + std * eps[k]
        else:  # distilled: few steps of a network that reads all of the teacher's noise
            n, size, noise = self.act_dim, self.act_dim * s["group"], noise.reshape(*noise.shape[:-2], -1)
            read = np.dot(noise[..., : n + size], self.first)
            for k, projection in enumerate(projections):
                if k:
                    read = np.dot(np.concatenate([x, noise[..., n + k * size : n + (k + 1) * size]], -1), t["x.weight"])
                x = x + self.net(read + projection)
        return np.tanh(x) if s["squash"] == "tanh" else clip(clip(x, UNIT) + F(s["explore_std"]) * eps[-1], UNIT)


def main(words):
    """Serve a pipe, or check and measure."""
    seed = words[words.index("--seed") + 1 :][:1] if "--seed" in words else ["0"]
    wrong = {*words} - {"--pipe", "--noise-free", "--seed", *seed}
    if wrong or not (seed and seed[0].isdecimal()):
        sys.exit(f"{__doc__}\nFlags: --pipe, --noise-free, --seed N")
    try:
        policy = Policy(seed=int(seed[0]) if "--seed" in words else None)
        read, out = sys.stdin.buffer.read, sys.stdout.buffer
        while "--pipe" in words and (kind := read(1)):
            if kind == b"R":
                policy.reset()
                continue
            head = read(4) if kind == b"A" else b""
            shape = int.from_bytes(head, "little"), policy.obs_dim
            data = read(4 * shape[0] * shape[1])
            if len(head) < 4 or len(data) < 4 * shape[0] * shape[1]:
                raise BadPolicy(f"A request that begins with {kind!r} was given, or one cut short; see --help.")
            obs = np.frombuffer(data, "<f4").reshape(shape)
            out.write(policy.act(obs, explore="--noise-free" not in words).astype("<f4").tobytes())
            out.flush()
    except BadPolicy as error:
        sys.exit(str(error))
    if "--pipe" not in words:
        begin = time.perf_counter()
        for _ in range(1000):
            policy.act(np.zeros(policy.obs_dim, F))
        print(f"{policy.name}: test vectors agree; {time.perf_counter() - begin:.3f} ms per action")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
