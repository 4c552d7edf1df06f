"""Pictures in, batches out."""
