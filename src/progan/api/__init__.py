"""What Python code calls: training, in a notebook too, and a run as an object."""
