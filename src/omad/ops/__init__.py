"""Pure mathematics, each function with its paper and equation."""
