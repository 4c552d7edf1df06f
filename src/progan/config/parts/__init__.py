"""Parts of one's own: what they are, how the tree of options takes them in, and files that define them."""
