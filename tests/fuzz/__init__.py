"""Mutated files against every reader of files that come from strangers."""
