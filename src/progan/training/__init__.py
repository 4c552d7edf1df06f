"""From networks and batches to a trained generator."""
