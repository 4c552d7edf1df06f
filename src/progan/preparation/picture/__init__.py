"""One picture: from the bytes of its file to the pixels of a set."""
