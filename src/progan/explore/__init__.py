"""What is in a latent space: the place of a picture, directions, mixtures, and a page to see it."""
