"""Putting keys in order: all of them, or as far as the k-th."""
