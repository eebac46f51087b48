"""The maths and text syntax of NASA: steering, strength, alphas and blocks."""
