"""A map of districts, cut into cells: in which of them a point is."""
