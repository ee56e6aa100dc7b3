"""Arithmetic of a traced program: the operations of its matrix products, read from its jaxpr."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.extend.core import Jaxpr, jaxprs_in_params

from omad import buffer
from omad.types import Algorithm, EnvSpec

__all__ = ["of_jaxpr", "of_update"]


def of_jaxpr(jaxpr: Jaxpr, every: int = 1) -> float:
    """Floating-point operations of all matrix products and convolutions; element-wise work is left out.

    A loop of known length counts as often as it runs; one whose length only the data decides counts once. The second
    branch of a `lax.cond`, for which its condition holds, counts once in `every` times, the first one in the others. Of
    a switch, the dearest branch counts.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        name, out = eqn.primitive.name, eqn.outvars[0].aval if eqn.outvars else None
        inner = [of_jaxpr(below, every) for below in jaxprs_in_params(eqn.params)]
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = math.prod(_shape(eqn.invars[0].aval)[axis] for axis in contracted)
            total += 2.0 * depth * math.prod(_shape(out))
        elif name == "conv_general_dilated":
            kernel, to = eqn.invars[1].aval, eqn.params["dimension_numbers"].rhs_spec[0]
            total += 2.0 * math.prod(_shape(out)) * math.prod(_shape(kernel)) / _shape(kernel)[to]
        elif name == "cond":
            total += inner[0] + (inner[1] - inner[0]) / every if len(inner) == 2 else max(inner)
        else:
            total += eqn.params.get("length", 1) * sum(inner) if name == "scan" else sum(inner)
    return total


def _shape(aval: Any) -> tuple[int, ...]:
    return aval.shape


def of_update(algorithm: Algorithm, spec: EnvSpec, batch_size: int, every: int) -> float:
    """Operations of one gradient step, on average over a cadence of `every`, the policies' own; nothing is compiled."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    learner = jax.eval_shape(algorithm.init, key)
    count = jax.ShapeDtypeStruct((), "int32")
    traced = jax.make_jaxpr(algorithm.update)(learner, buffer.batch_shapes(spec, batch_size), key, count)
    return of_jaxpr(traced.jaxpr, every)
