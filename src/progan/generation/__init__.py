"""From a trained generator to images: samples, files, grids, videos."""
