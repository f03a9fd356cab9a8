"""Lines of great-circle arcs: who is within a corridor about one, and how far from it."""
