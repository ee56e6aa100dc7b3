"""Seeds of one run: one after the other through one program, or as one batch, shared out over the devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from omad.tree import at, put
from omad.types import Step

T = TypeVar("T")


class ProgramInputs(NamedTuple):
    """What programs that learn are given beside the carry: neither compiled into them nor changed by them."""

    hyperparameters: dict[str, Array]
    """Those of `Algorithm.hyperparameters`."""
    demonstrations: Step | None
    """Complete episodes."""


class SequentialSeeds:
    """What the `vmap` of a loop over seeds computes, seed after seed: one compiled program, without a seed axis.

    Inside a compiled loop over seeds XLA rounds differently, and the hosted loop would not be met any more. All that
    a seed changes is cut out of the carry and put back, but for the rings, which are written in place.

    Args:
        one: (carry, seed, start, count, given, seed_index) -> carry.
        given: Handed to every call.
    """

    def __init__(self, one: Callable[..., Any], given: ProgramInputs | None) -> None:
        def program(carry: Any, seeds: Array, seed_index: Array, start: Array, count: Array, given: Any) -> Any:
            whole = without_ring(carry)
            own = with_ring(at(whole, seed_index), carry.ring)
            done = one(own, seeds[seed_index], start, count, given, seed_index)
            return with_ring(put(whole, seed_index, without_ring(done)), done.ring)

        self._program: Any = jax.jit(program, donate_argnums=0)
        self._given = given

    def __call__(self, carry: T, seeds: Int[Array, " seed"], start: Array, count: Array) -> T:
        """The carry after `count` steps; the given one is donated."""
        for seed_index in range(len(seeds)):
            carry = self._program(carry, seeds, np.int32(seed_index), start, count, self._given)
        return carry


def shard_over_devices(function: Any, n_seeds: int, by_seed: tuple[bool, ...], donate: tuple[int, ...]) -> Any:
    """A function of a batch of seeds, compiled and shared out over the local devices.

    Each device takes equally many seeds, and as many devices take part as that allows. Seeds need nothing of each
    other, so the numbers are those of one device, up to the rounding of products of batches of another size.

    Args:
        function: What is compiled; all that it gives leads with a seed axis.
        n_seeds: Seeds in the batch.
        by_seed: For each argument, whether it leads with a seed axis.
        donate: Arguments whose memory is used again.
    """
    sharding = seed_sharding(n_seeds)
    specs = tuple(sharding.spec if leads else PartitionSpec() for leads in by_seed)
    shared = jax.shard_map(function, mesh=sharding.mesh, in_specs=specs, out_specs=sharding.spec, check_vma=False)
    # Where arguments lie is said here, or the same program would be compiled again for those fresh from the host.
    lie = tuple(NamedSharding(sharding.mesh, spec) for spec in specs)
    return jax.jit(shared, donate_argnums=donate, in_shardings=lie, out_shardings=sharding)


def seed_sharding(n_seeds: int) -> NamedSharding:
    """How arrays that lead with a seed axis lie on the local devices."""
    devices = jax.local_devices()
    use = max(k for k in range(1, len(devices) + 1) if n_seeds % k == 0)
    return NamedSharding(Mesh(np.asarray(devices[:use]), ("seed",)), PartitionSpec("seed"))


def replicate(shared: T, n_seeds: int) -> T:
    """What has no seed axis, on every device that seeds are shared out over."""
    return jax.device_put(shared, NamedSharding(seed_sharding(n_seeds).mesh, PartitionSpec()))


class ShardedSeeds:
    """The `vmap` of a loop over seeds, shared out over the local devices; arguments as those of `SequentialSeeds`."""

    def __init__(self, one: Callable[..., Any], given: ProgramInputs | None) -> None:
        self._batched = jax.vmap(one, in_axes=(0, 0, None, None, None))
        self._programs: dict[int, Any] = {}
        self._given = given

    def _program(self, n: int) -> Any:
        if n not in self._programs:
            self._programs[n] = shard_over_devices(self._batched, n, (True, True, False, False, False), (0,))
            self._given = replicate(self._given, n)
        return self._programs[n]

    def __call__(self, carry: T, seeds: Int[Array, " seed"], start: Array, count: Array) -> T:
        """The carry after `count` steps; the given one is donated."""
        sharding = seed_sharding(len(seeds))
        return self._program(len(seeds))(*jax.device_put((carry, seeds), sharding), start, count, self._given)


def _ring(carry: Any) -> Any:
    return carry.ring


def without_ring(carry: T) -> T:
    """All but the replay ring."""
    return eqx.tree_at(_ring, carry, None)


def with_ring(carry: T, ring: Step | None) -> T:
    """With a replay ring put back."""
    return eqx.tree_at(_ring, carry, ring, is_leaf=lambda leaf: leaf is None)
