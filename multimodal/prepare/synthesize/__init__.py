"""Rows made from a table's own rows, for training: captions, hard negatives, drawn variants, sentences about molecules.

1. A ``Recipe`` (``recipe.py``) makes rows from one row: ``Captions`` from templates over columns, ``PictureVariants``,
   ``MoleculeSentences`` by RDKit, ``OutlineVariants``. ``Swaps`` makes hard negatives for captions instead.
2. The table is read once (``copied_table.py``): the values of the splits that are not trained on are fingerprinted, the
   values of attributes collected.
3. It is read again, and written with the rows made from training rows. What copies a value of the other splits is refused
   (``pipeline.py``).

Every new row is in its origin's group and split, and its column ``made_by`` says how it was made. The same table and
settings give the same bytes.
"""
