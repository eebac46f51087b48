"""A synthetic world of drawn shapes: every attribute of an image can be read back from its pixels."""
