"""From somebody's table to shards that can be trained on.

1. A ``Source`` (source.py) hands out the rows of a table, as often as it is asked: here twice.
2. First reading: every row is cleaned (cleaning.py); of its content stays a fingerprint (fingerprints.py), no more.
3. The fingerprints tell which rows are equal or near (near.py, duplicates.py), which belong together, and so the split
   of each (splitting.py).
4. Second reading: the rows that stay are written (shards.py) and counted for the report (statistics.py, report.py).

``run.prepare`` walks this road. A *content column* is one that holds a modality; all others go along as they are.
"""
