"""Vectors that another system made."""
