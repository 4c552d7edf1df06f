"""What a person sees in a terminal: messages, bars, tables."""
