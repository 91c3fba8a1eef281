"""Published weights, from a hub or from local files."""
