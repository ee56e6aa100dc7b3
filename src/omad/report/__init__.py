"""Pictures and tables made from run folders; nothing here imports JAX."""
