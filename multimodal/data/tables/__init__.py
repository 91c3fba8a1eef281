"""Opening a table by name: files and their readers, folders, tar shards, joined columns."""
