"""Students of one, two and four steps, from the same start and with the same budget."""
