"""Other people's weights in."""
