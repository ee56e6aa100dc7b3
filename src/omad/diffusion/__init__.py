"""Diffusion processes that policies sample from."""
