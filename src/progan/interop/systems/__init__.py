"""Networks of other systems as ours: one module a system."""
