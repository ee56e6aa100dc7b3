"""Arithmetic of a traced program: its matrix products and their operations, read from its jaxpr."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params

from omad import buffer
from omad.types import Algorithm, EnvSpec

_EACH = 64
"""Times that a product is made in a row: with one pair of numbers after the other, as in an update's loops."""


@dataclasses.dataclass(frozen=True)
class Product:
    """A kind of matrix product or convolution; equal ones take equally long."""

    operands: tuple[tuple[tuple[int, ...], Any], ...]
    """Shape and type of both sides."""
    flops: float
    words: str
    """The primitive and its parameters as they are written, by which equal kinds are known."""
    make: Callable[[Any, Any], Any] = dataclasses.field(compare=False)
    """(one side, the other) -> the product."""


def products(jaxpr: Jaxpr, every: int = 1) -> dict[Product, float]:
    """All matrix products and convolutions, and how often each is made; element-wise work is left out.

    A loop of known length counts as often as it runs; one whose length only the data decides counts once. The second
    branch of a `lax.cond`, for which its condition holds, counts once in `every` times, the first one in the others. Of
    a switch, the dearest branch counts.
    """
    total = collections.defaultdict[Product, float](float)
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        inner = [products(below, every) for below in jaxprs_in_params(eqn.params)]
        if name in ("dot_general", "conv_general_dilated"):
            total[_product(eqn)] += 1
            continue
        times = eqn.params.get("length", 1) if name == "scan" else 1
        weights = [times] * len(inner)
        if name == "cond" and len(inner) == 2:
            weights = [1 - 1 / every, 1 / every]
        elif name == "cond":
            dearest = max(range(len(inner)), key=lambda i: _flops(inner[i]))
            weights = [float(i == dearest) for i in range(len(inner))]
        for found, weight in zip(inner, weights, strict=True):
            for product, count in found.items():
                total[product] += weight * count
    return dict(total)


def _product(eqn: Any) -> Product:
    shapes = tuple((tuple(v.aval.shape), v.aval.dtype) for v in eqn.invars)
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        depth = math.prod(shapes[0][0][axis] for axis in contracted)
    else:
        kernel = shapes[1][0]
        depth = math.prod(kernel) / kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    flops = 2.0 * depth * math.prod(eqn.outvars[0].aval.shape)
    words = f"{eqn.primitive} {sorted(eqn.params.items(), key=str)}"
    return Product(shapes, flops, words, functools.partial(eqn.primitive.bind, **eqn.params))


def _flops(found: dict[Product, float]) -> float:
    return sum(product.flops * count for product, count in found.items())


def of_jaxpr(jaxpr: Jaxpr, every: int = 1) -> float:
    """Floating-point operations of all matrix products and convolutions, counted as `products` does."""
    return _flops(products(jaxpr, every))


def update_jaxpr(algorithm: Algorithm, spec: EnvSpec, batch_size: int) -> Jaxpr:
    """One gradient step; nothing is compiled."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    learner = jax.eval_shape(algorithm.init, key)
    count = jax.ShapeDtypeStruct((), "int32")
    return jax.make_jaxpr(algorithm.update)(learner, buffer.batch_shapes(spec, batch_size), key, count).jaxpr


def rehearsal(found: dict[Product, float]) -> tuple[Callable[[], Any], float]:
    """A compiled program that makes the given products, and nothing else, as often as is said, many times over.

    Returns:
        The program, and its operations.
    """
    work = sorted(found.items(), key=lambda item: -item[0].flops * item[1])
    times = [max(1, round(_EACH * count)) for _, count in work]
    random = np.random.default_rng(0)
    given = [
        tuple(jnp.asarray(random.uniform(-1.0, 1.0, shape), kind) for shape, kind in product.operands)
        for product, _ in work
    ]

    def one(product: Product, times: int, sides: tuple[Any, Any]) -> Any:
        def again(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            left, made = carry
            # Each product waits for the one before: otherwise one alone would be made.
            return (left := left.at[(0,) * left.ndim].add(1e-30 * made.ravel()[0])), product.make(left, sides[1])

        return jax.lax.fori_loop(0, times, again, (sides[0], product.make(*sides)))[1].ravel()[0]

    @jax.jit
    def run(given: list[Any]) -> list[Any]:
        return [one(product, n, sides) for (product, _), n, sides in zip(work, times, given, strict=True)]

    total = sum(product.flops * (n + 1) for (product, _), n in zip(work, times, strict=True))
    return functools.partial(run, given), total
