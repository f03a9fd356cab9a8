"""Each person once, and how many there are of what: a preview's part of a selection, which needs no order."""
