"""The networks, and nothing of training."""
