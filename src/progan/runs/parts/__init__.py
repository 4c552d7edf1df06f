"""Parts of one's own in a run: what is written down of them."""
