"""The nearest k points: how wide to look, and the order of what is found."""
