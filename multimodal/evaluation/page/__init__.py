"""The page of a report, ``report.html``: one self-contained file."""
