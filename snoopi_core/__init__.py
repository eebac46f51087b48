"""SNOOPI's method as plain tensors: no host, no trainer, nothing that draws a user interface."""
