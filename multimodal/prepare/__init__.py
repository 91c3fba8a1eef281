"""Preparation of a table for training: cleaning, removal of duplicates, and splits without leakage, written as shards.

1. A ``Source`` (``source.py``) yields the rows of a table; it is read twice.
2. First pass (``first_pass.py``): every row is cleaned (``cleaning.py``), and only fingerprints of its content are kept
   (``distinct_values.py``).
3. Plan (``plan.py``): the fingerprints determine which rows are equal or near (``near_texts.py``, ``near_pictures.py``,
   ``duplicates.py``), which are linked, and the split of each (``splitting.py``).
4. Second pass (``pipeline.py``): the rows that are kept are written (``shard_writer.py``) and counted for the report
   (``report/``).

``pipeline.prepare`` runs these steps. A *content column* contains a modality; all other columns are copied unchanged.
"""
