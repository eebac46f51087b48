"""How lines are told apart in the small world's pictures."""

# Okabe and Ito's colours, which colour-blind people tell apart; markers say the same a second time.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "D"), ("#555555", "x"))
