"""One agent's policy as an ONNX graph: `obs` and `noise` in, `action` in the env's own box out; any batch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from omad import extras
from omad.export.fold import Folded

OPSET = 20
"""Operators of ONNX 1.15 (2023), the first with Gelu."""
_IR = 9
_OPERATORS = {"gelu": "Gelu", "mish": "Mish", "relu": "Relu", "tanh": "Tanh"}


def require(package: str) -> Any:
    """Import `onnx` or `onnxruntime`.

    Raises:
        UserError: It is not installed.
    """
    extras.require("onnx", "ONNX", package)
    return importlib.import_module(package)


class _Graph:
    """Nodes and constants, named by counting."""

    def __init__(self) -> None:
        onnx = require("onnx")
        self.helper, self.numpy = onnx.helper, importlib.import_module("onnx.numpy_helper")
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        """The name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, kind)
        return name

    def __call__(self, operator: str, *inputs: Any, out: str = "", **attributes: Any) -> str:
        """The name of an operator's result; numbers and arrays among the inputs become constants."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        out = out or f"v{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, names, [out], **attributes))
        return out

    def clip(self, x: str, low: Any, high: Any, **names: Any) -> str:
        """Within scalar bounds."""
        return self("Clip", x, np.float32(low), np.float32(high), **names)


def build(one: Folded, low: np.ndarray, high: np.ndarray, title: str) -> bytes:
    """The serialised graph.

    Args:
        one: The policy.
        low: Lower ends of the action box.
        high: Upper ends.
        title: What to call it.

    Raises:
        UserError: The package onnx is missing.
    """
    g, t, s, act = _Graph(), one.tensors, one.settings, one.act_dim
    seen = g("MatMul", _normalised(g, one), t["obs.weight"])
    names = [*(f"hidden.{i}" for i in range(len(s["activations"]) - 1)), "last"]
    weights = {name: (g.constant(t[f"{name}.weight"]), g.constant(t[f"{name}.bias"])) for name in names}
    into = g.constant(t["x.weight"]) if "x.weight" in t else ""

    def row(k: int) -> str:
        return g("Gather", "noise", g.constant(k, np.int64), axis=1)

    def net(k: int, *terms: str) -> str:
        x = g("Add", seen, t["time"][k])
        for term in terms:
            x = g("Add", x, term)
        for activation, name in zip(s["activations"], names, strict=True):
            options = {"approximate": "tanh"} if activation == "gelu" else {}
            x = g(_OPERATORS[activation], x, **options)
            x = g("Gemm", x, *weights[name])
        return x

    if one.kind == "gaussian":
        out = net(0)
        part = lambda first, last: g(  # noqa: E731
            "Slice", out, *(g.constant([i], np.int64) for i in (first, last, 1))
        )
        log_std = g.clip(part(act, 2 * act), s["log_std_low"], s["log_std_high"])
        action = g("Tanh", g("Add", part(0, act), g("Mul", g("Exp", log_std), row(0))))
    elif one.kind == "deterministic":
        noise = g("Mul", row(0), s["explore_std"])
        action = g.clip(g("Add", g("Tanh", net(0)), noise), -1, 1)
    else:
        x = g("Mul", row(0), s["prior_scale"])
        if one.kind == "chain":
            h = t["step"]
            keep, jump = 1.0 - h / np.float32(s["prior_scale"] ** 2), t.get("jump", np.sqrt(2.0 * h))
            for k in range(one.steps):
                u = g.clip(net(k, g("MatMul", x, into)), -s["control_clip"], s["control_clip"])
                drift = g("Add", g("Mul", x, keep[k]), g("Mul", u, h[k]))
                x = g("Add", drift, g("Mul", row(k + 1), jump[k]))
        elif one.kind == "ddpm":
            for k in reversed(range(one.steps)):
                from_x, from_noise, mean_x0, mean_x, std = t["coefficients"][k]
                eps = g("Mul", net(k, g("MatMul", x, into)), from_noise)
                x0 = g.clip(g("Sub", g("Mul", x, from_x), eps), -1, 1)
                mean = g("Add", g("Mul", x0, mean_x0), g("Mul", x, mean_x))
                x = g("Add", mean, g("Mul", row(k), std))
        else:
            group = s["group"]
            for k in range(one.steps):
                read = g("Concat", x, *(row(1 + k * group + i) for i in range(group)), axis=1)
                x = g("Add", x, net(k, g("MatMul", read, into)))
        if s["squash"] == "tanh":
            action = g("Tanh", x)
        else:
            noise = g("Mul", row(one.noise_rows - 1), s["explore_std"])
            action = g.clip(g("Add", g.clip(x, -1, 1), noise), -1, 1)
    unit, half = np.float32(1.0), np.float32(0.5)
    below, above = g("Mul", g("Sub", unit, action), half * low), g("Mul", g("Add", action, unit), half * high)
    g("Max", g("Min", g("Add", below, above), high), low, out="action")

    return _packed(g, one, title)


def alike(one: bytes, other: bytes) -> bool:
    """Whether two graphs differ in nothing but the values of their constants, so that they cost the same."""
    onnx, forms = require("onnx"), []
    for data in (one, other):
        try:
            model = onnx.load_model_from_string(data)
        except Exception:  # noqa: BLE001 - a file that somebody else wrote can raise anything
            return False
        for constant in model.graph.initializer:
            if constant.data_type == onnx.TensorProto.FLOAT:
                constant.ClearField("raw_data")
        forms.append(model.SerializeToString(deterministic=True))
    return forms[0] == forms[1]


def _packed(g: _Graph, one: Folded, title: str) -> bytes:
    """Nodes and constants as a model, checked."""
    onnx, act = require("onnx"), one.act_dim
    value = lambda name, *shape: g.helper.make_tensor_value_info(  # noqa: E731
        name, onnx.TensorProto.FLOAT, ["batch", *shape]
    )
    graph = g.helper.make_graph(
        g.nodes, "policy", [value("obs", one.obs_dim), value("noise", one.noise_rows, act)], [value("action", act)],
        [g.numpy.from_array(array, name) for name, array in g.constants.items()], doc_string=title,
    )  # fmt: skip
    model = g.helper.make_model(graph, opset_imports=[g.helper.make_opsetid("", OPSET)], producer_name="omad")
    model.ir_version = _IR
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _normalised(g: _Graph, one: Folded) -> str:
    """What the network sees of an observation."""
    if one.normaliser == "running":
        centred = g("Sub", "obs", one.tensors["norm.mean"])
        return g.clip(g("Div", centred, one.tensors["norm.std"]), -10, 10)
    if one.normaliser == "harl":
        axis = g.constant([-1], np.int64)
        centred = g("Sub", "obs", g("ReduceMean", "obs", axis))
        std = g("Sqrt", g("ReduceMean", g("Mul", centred, centred), axis))
        return g("Div", centred, g("Max", std, np.float32(1e-6)))
    return "obs"
