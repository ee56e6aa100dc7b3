"""Configurations of the algorithms, apart from their programs: they are read without waiting for JAX."""
