"""Tables by name: files and their readers, folders of files, tar shards, joined columns."""
