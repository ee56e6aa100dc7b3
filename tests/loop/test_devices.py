"""Seeds shared out over several devices; a CPU can pretend to be several, but only when its process begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from omad.algos import config_class, make
from omad.envs import probe
from omad.loop import fused
from omad.loop.seeds import seed_sharding

sizes = dict(actor_width=8, actor_layers=1, critic_width=8, critic_layers=1)
if sys.argv[2] == "omad":
    sizes |= dict(denoising_steps=2, time_frequencies=2, time_width=4, atoms=7, v_max=5.0, renorm_warmup=6)
config = config_class(sys.argv[2])(**sizes)
env = probe.push()
sizes = fused.LoopConfig(n_envs=2, updates_per_step=2, batch_size=4, buffer_rows=16, warmup_vector_steps=5)
loop = fused.make(make(config, env.spec), env, sizes, batch_seeds=True)
seeds = jnp.asarray([3, 4, 5, 6])
carry = loop.warm(loop.init(seeds), seeds, jnp.asarray(0), jnp.asarray(5))
carry = loop.chunk(carry, seeds, jnp.asarray(5), jnp.asarray(4))
carry = jax.tree.map(jnp.asarray, jax.device_get(carry))  # as out of a checkpoint, on one device
carry = loop.chunk(carry, seeds, jnp.asarray(9), jnp.asarray(3))
found = {f"{i:03d}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(carry))}
found["healthy"] = np.asarray(loop.healthy(carry))
found["devices"] = np.asarray(len(jax.tree.leaves(carry.learner)[0].sharding.device_set))
found["devices for six seeds"] = np.asarray(seed_sharding(6).mesh.size)
np.savez(sys.argv[1], **found)
"""


def numbers(path: Path, algorithm: str, devices: int) -> dict[str, np.ndarray]:
    """What a process with so many devices computes; rounding may differ, for a batch of one seed is another product."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), algorithm],
        check=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )
    with np.load(path) as found:
        return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["hatd3", "omad"])
def test_four_devices_compute_what_one_does(tmp_path: Path, algorithm: str) -> None:
    """Four seeds take all four devices, six take three; also after a restart from one device's arrays."""
    one, four = (numbers(tmp_path / f"{n}.npz", algorithm, n) for n in (1, 4))
    for name, apart in (("devices", 4), ("devices for six seeds", 3)):
        assert (int(one.pop(name)), int(four.pop(name))) == (1, apart)
    assert four["healthy"].all()
    assert one.keys() == four.keys()
    assert len(one) > 40
    for name, value in one.items():
        np.testing.assert_allclose(four[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
