"""Corruptions of values as they happen in data: misspelled words, blurred pictures, noisy sounds, graphs with gaps.

A corruption takes a raw value and a random generator, and returns another raw value. Processors name theirs in the method
``corruptions``, those of other packages as well.
"""
