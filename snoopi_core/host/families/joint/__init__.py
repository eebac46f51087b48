"""Networks of joint attention: the technique, and a small declaration for each network."""
