"""Data: from a table to batches of tensors.

1. A *table* has rows and named columns. ``open_table`` opens files, folders, URLs, hub data sets and objects in memory
   (``tables/``).
2. A ``Schema`` gives its columns a meaning: modalities, key, group, split, targets and hard negatives (``schema.py``,
   ``splits.py``).
3. ``Samples`` are the rows of a table seen through a schema. The processors of the modalities turn their values into items;
   an unreadable row becomes a reject (``samples.py``). A frozen encoder's items are its cached features
   (``frozen_features.py``).
4. A *sampler* draws the rows of each training batch from the seed and the epoch (``samplers.py``). A ``Stream`` reads files
   sequentially instead and draws from a buffer (``stream.py``).
5. A *loader* processes rows in workers, collates them to a ``Batch``, counts rejects and resumes at any batch
   (``loaders.py``).
6. The ``DataModule`` puts these together for a Lightning trainer (``datamodule.py``); ``load_run_data`` finds the data of a
   run again (``run_data.py``).

The names are listed in ``__init__.pyi`` and imported when they are first used, so that opening a table does not import
Lightning.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
