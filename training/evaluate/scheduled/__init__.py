"""The evaluation of a student while it is trained: `evaluate.every`."""
