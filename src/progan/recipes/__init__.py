"""Ready-made configurations, one YAML file each."""
