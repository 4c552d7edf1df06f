"""One run on disk, from its start to its end."""
