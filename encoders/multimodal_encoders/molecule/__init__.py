"""Encoders of molecules, all that needs RDKit."""
