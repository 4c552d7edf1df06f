"""From a trained generator and a set of pictures to numbers in a file: sources, measuring, results."""
