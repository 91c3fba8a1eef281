"""Trained encoders for other programs.

1. A *tower* is one modality's encoder with its head: the processor's tensors -> unit vectors. Adapters are merged.
2. A *format* writes the towers into a folder, each with the other program's own means.
3. What was written is loaded again and must make the same vectors to 1e-4.
4. ``export.json`` beside it says what the inputs are and how raw values become them.
"""
