"""What runs were, as one page."""
