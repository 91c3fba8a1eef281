"""An experiment is three objects: a model, a data module and a trainer.

1. A configuration file becomes the three objects (``load_config``), and the three objects a configuration
   (``describe``), so that an experiment moves between YAML and Python.
2. ``fit`` trains from Python; ``lightning_cli`` does the same for ``multimodal fit``. Both leave the same run folder, and from
   the same settings and seed the same weights.
"""
