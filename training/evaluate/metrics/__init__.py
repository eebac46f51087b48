"""Scores of image sets: one file for each metric, with the arithmetic apart from the networks."""
