"""The same questions put to every space, field and mover."""
