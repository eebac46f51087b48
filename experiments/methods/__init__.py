"""Compares the methods by which a negative prompt can act, with the same effort for each: docs/METHODS.md."""
