"""What runs have trained: which generator is meant, and new runs that begin with it."""
