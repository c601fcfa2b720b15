"""How to move, how to weigh, and how to turn samples into a density of states."""
