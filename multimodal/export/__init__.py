"""Export of trained encoders to other programs.

1. A *tower* is one modality's encoder with its head: the processor's tensors -> unit vectors. Adapters are merged.
2. A *format* writes the towers into a folder, with the library of the other program.
3. The written files are loaded again and must return the same vectors to 1e-4.
4. ``export.json`` in the same folder describes the inputs and how raw values become inputs.
5. Next to ONNX files, an *example* in Python and in JavaScript does that by itself, by ``Processor.preprocessing()``.
"""
