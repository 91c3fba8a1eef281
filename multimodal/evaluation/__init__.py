"""Measures of how good a trained space is: cross-modal retrieval and a linear baseline."""
