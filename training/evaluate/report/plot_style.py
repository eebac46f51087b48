"""Colours and markers of the lines in charts."""

# Okabe and Ito's colours, which colour-blind people can distinguish; each has its own marker too.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"), ("#555555", "x"))
