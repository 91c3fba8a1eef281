"""Report of ``prepare``: warnings, examples, statistics, and the HTML page that shows them."""
