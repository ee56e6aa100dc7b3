"""Runs one agent's policy from its folder. Needs Python and NumPy, nothing else.

    policy = Policy("agent_0")           # checks the files and 16 test vectors
    policy.reset()                       # at the start of every episode
    action = policy.act(observation)     # raw observation in, action in the env's own box out

`python runner.py` checks the folder and measures itself. `python runner.py --pipe` answers requests on standard input:
`R` begins an episode; `A`, a little-endian uint32 n and n observations as float32 give n actions as float32.
"""

import hashlib
import json
import struct
import sys
import time
from pathlib import Path

import numpy as np

FORMAT = 1


class BadPolicy(ValueError):
    """The folder, or what was given to it, cannot be used; the message says what and why."""


def read_tensors(data):
    """A safetensors file: 8 bytes of header length, a JSON header, then the numbers."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    body, tensors = memoryview(data)[8 + size :], {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            tensors[name] = np.frombuffer(body[first:last], "<f4").reshape(entry["shape"]).astype(np.float32)
    return tensors


def gelu2(x):
    """Twice the GELU (tanh approximation); the next layer's weights are halved instead."""
    y = x * x
    y *= np.float32(0.044715 * 0.7978845608028654)
    y += np.float32(0.7978845608028654)
    y *= x
    np.tanh(y, y)
    y += np.float32(1)
    y *= x
    return y


def mish(x):
    """X tanh(log(1 + e^x))."""
    e = np.exp(np.minimum(x, np.float32(20)))
    n = e * (e + np.float32(2))
    return x * (n / (n + np.float32(2)))


ACTIVATIONS = {"gelu": gelu2, "mish": mish, "relu": lambda x: np.maximum(x, np.float32(0)), "tanh": np.tanh}


class Policy:
    """One agent's policy. Observations may have a leading batch axis; each row then has a history of its own."""

    def __init__(self, folder=None, seed=None):
        folder = Path(folder) if folder is not None else Path(__file__).resolve().parent
        self.rng = np.random.default_rng(seed)
        try:
            self.about = about = json.loads((folder / "policy.json").read_bytes())
            data = (folder / "policy.safetensors").read_bytes()
        except (OSError, ValueError) as error:
            raise BadPolicy(f"{folder} cannot be read ({error}); export it again.") from None
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise BadPolicy(f"{folder / 'policy.json'} is not of format {FORMAT}; use the runner.py that came with it.")
        rest = {key: value for key, value in about.items() if key != "checksum"}
        found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        for name, digest, due in (
            ("policy.json", found, about.get("checksum")),
            ("policy.safetensors", hashlib.sha256(data).hexdigest(), about.get("tensors_sha256")),
        ):
            if digest != due:
                raise BadPolicy(f"{folder / name} does not match its checksum; restore it from a copy or export again.")
        self.name, self.kind, self.rows = about["agent"], about["kind"], about["noise_rows"]
        self.obs_dim, self.act_dim, self.history = about["obs_dim"], about["act_dim"], about["history"]
        self.low, self.high = (np.asarray(about[key], np.float32) for key in ("action_low", "action_high"))
        self.set = about["settings"]
        self.t = t = read_tensors(data)
        self.activations = [ACTIVATIONS[name] for name in self.set["activations"]]
        scale = [np.float32(0.5 if name == "gelu" else 1.0) for name in self.set["activations"]]
        count = len(self.activations)
        layers = [*(f"hidden.{i}" for i in range(count - 1)), "last"]
        self.layers = [(s * t[f"{name}.weight"], t[f"{name}.bias"]) for s, name in zip(scale, layers)]  # noqa: B905
        if self.kind == "chain":
            h = t["step"]
            self.keep = np.float32(1) - h / np.float32(self.set["prior_scale"] ** 2)
            self.jump = np.sqrt(np.float32(2) * h)
        self.reset()
        self._check(about["tolerance"])

    def _check(self, tolerance):
        """The test vectors that the folder holds must come out as they did in training code."""
        worst = float(np.abs(self._policy(self.t["test.obs"], self.t["test.noise"]) - self.t["test.action"]).max())
        if not worst <= tolerance:
            raise BadPolicy(
                f"{self.name}: a test vector is off by {worst:.2g}, more than {tolerance:.2g}; export again."
            )

    def reset(self):
        """Begin an episode: forget what was seen."""
        self.past = None

    def act(self, obs, noise=None, explore=True):
        """Raw observation `(obs,)` or `(batch, obs)` -> action in the env's box.

        noise: standard normal `(rows, act)`, drawn here if not given. explore: False gives noise-free actions.
        """
        obs = np.asarray(obs, np.float32)
        if obs.ndim not in (1, 2) or obs.shape[-1] != self.obs_dim:
            raise BadPolicy(f"{self.name}: an observation of shape {obs.shape} was given; ({self.obs_dim},) is needed.")
        if not np.isfinite(obs).all():
            where = int(np.argwhere(~np.isfinite(obs))[0][-1])
            raise BadPolicy(f"{self.name}: entry {where} of the observation is not finite; check the sensor.")
        shape = (*obs.shape[:-1], self.rows, self.act_dim)
        if noise is not None:
            noise = np.asarray(noise, np.float32)
            if noise.shape != shape:
                raise BadPolicy(f"{self.name}: noise of shape {noise.shape} was given; {shape} is needed.")
        elif explore:
            noise = self.rng.standard_normal(shape, np.float32)
        else:
            noise = np.zeros(shape, np.float32)
        if self.history == 1:
            action = self._policy(obs, noise)
        else:
            if self.past is None or self.past[0].shape[:-1] != obs.shape[:-1]:
                still = np.zeros((*obs.shape[:-1], self.act_dim), np.float32)
                self.past = [np.concatenate([obs, still], -1)] * (self.history - 1)
            action = self._policy(np.concatenate([obs, *self.past], -1), noise)
            self.past = [np.concatenate([obs, action], -1), *self.past[:-1]]
        return self.low + (action + np.float32(1)) * (np.float32(0.5) * (self.high - self.low))

    def _normalised(self, obs):
        kind = self.about["normaliser"]
        if kind == "running":
            return np.clip((obs - self.t["norm.mean"]) / self.t["norm.std"], np.float32(-10), np.float32(10))
        if kind == "harl":
            obs = obs - obs.mean(-1, keepdims=True)
            return obs / np.maximum(np.sqrt((obs * obs).mean(-1, keepdims=True)), np.float32(1e-6))
        return obs

    def _net(self, first):
        """All that follows the first layer."""
        x = first
        for activation, (weight, bias) in zip(self.activations, self.layers):  # noqa: B905
            x = activation(x) @ weight
            x += bias
        return x

    def _policy(self, obs, noise):
        """Observation, frames stacked, and noise `(..., rows, act)` -> action in [-1, 1]."""
        t, s = self.t, self.set
        noise = np.moveaxis(noise, -2, 0)
        seen = self._normalised(obs) @ t["obs.weight"]
        one = np.float32(1)
        if self.kind == "gaussian":
            out = self._net(seen + t["time"][0])
            log_std = np.clip(out[..., self.act_dim :], np.float32(s["log_std_low"]), np.float32(s["log_std_high"]))
            return np.tanh(out[..., : self.act_dim] + np.exp(log_std) * noise[0])
        if self.kind == "deterministic":
            action = np.tanh(self._net(seen + t["time"][0]))
            return np.minimum(np.maximum(action + np.float32(s["explore_std"]) * noise[-1], -one), one)
        x = np.float32(s["prior_scale"]) * noise[0]
        if self.kind == "chain":  # Euler-Maruyama steps of a controlled Ornstein-Uhlenbeck process
            bound, within = np.float32(s["control_clip"]), t["x.weight"]
            for k in range(s["steps"]):
                u = self._net(x @ within + seen + t["time"][k])
                u = np.minimum(np.maximum(u, -bound), bound)
                x = self.keep[k] * x + t["step"][k] * u + self.jump[k] * noise[k + 1]
            return np.tanh(x)
        if self.kind == "ddpm":  # from noise to what the network takes the action to be
            for k in reversed(range(s["steps"])):
                from_x, from_noise, mean_x0, mean_x, std = t["coefficients"][k]
                x0 = from_x * x - from_noise * self._net(x @ t["x.weight"] + seen + t["time"][k])
                x = mean_x0 * np.minimum(np.maximum(x0, -one), one) + mean_x * x + std * noise[k]
        else:  # distilled: steps of a network that reads the teacher's noise
            groups = np.moveaxis(noise[1 : 1 + s["steps"] * s["group"]], 0, -2)
            groups = groups.reshape(*x.shape[:-1], s["steps"], s["group"] * self.act_dim)
            for k in range(s["steps"]):
                read = np.concatenate([x, groups[..., k, :]], -1) @ t["x.weight"]
                x = x + self._net(read + seen + t["time"][k])
        if s["squash"] == "tanh":
            return np.tanh(x)
        return np.minimum(np.maximum(np.minimum(np.maximum(x, -one), one) + s["explore_std"] * noise[-1], -one), one)


def serve(policy, explore):
    """Answer requests on standard input until it ends."""
    read, out = sys.stdin.buffer.read, sys.stdout.buffer
    while kind := read(1):
        if kind == b"R":
            policy.reset()
            continue
        (n,) = struct.unpack("<I", read(4))
        obs = np.frombuffer(read(4 * n * policy.obs_dim), "<f4").reshape(n, policy.obs_dim)
        out.write(policy.act(obs, explore=explore).astype("<f4").tobytes())
        out.flush()


def main(words):
    """Serve a pipe, or check and measure."""
    seed = int(words[words.index("--seed") + 1]) if "--seed" in words else None
    try:
        policy = Policy(seed=seed)
        if "--pipe" in words:
            return serve(policy, "--noise-free" not in words)
    except BadPolicy as error:
        sys.exit(str(error))
    obs, begin = np.zeros(policy.obs_dim, np.float32), time.perf_counter()
    for _ in range(1000):
        policy.act(obs)
    sys.stdout.write(f"{policy.name}: test vectors agree; {time.perf_counter() - begin:.3f} ms per action\n")
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
