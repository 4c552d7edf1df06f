"""The sliced Wasserstein distance of Laplacian pyramids."""
