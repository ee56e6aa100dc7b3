"""The run folder, and the arrays of its checkpoints."""
