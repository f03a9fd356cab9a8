"""The order of points in an index: a counting sort over bands, a radix sort within each."""
