"""What images are scored by; one file for each metric, the maths apart from the networks."""
