"""Measures of how two sets of vectors differ: pure functions, one family a file."""
