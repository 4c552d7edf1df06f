"""What losses are made of: adversarial losses and penalties, shipped or of one's own."""
