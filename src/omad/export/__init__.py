"""Policies without JAX: one folder an agent, with a runner that needs NumPy only, and an ONNX graph."""
