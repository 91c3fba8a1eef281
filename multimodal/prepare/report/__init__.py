"""What ``prepare`` reports: warnings, examples, statistics, and the HTML page that shows them."""
