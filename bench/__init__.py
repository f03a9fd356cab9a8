"""Benchmarks: each beside its peers in the same run. `python -m bench NAME`; the README says which there are."""
