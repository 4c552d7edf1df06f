"""From pictures of any kind to a packed set."""
