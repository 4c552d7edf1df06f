"""What an iteration costs, counted from shapes and measured."""
