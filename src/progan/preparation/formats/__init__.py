"""Readers of pictures, a module for each form in which they are kept."""
