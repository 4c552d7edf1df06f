"""Sample grids, generated files and interpolation videos."""
