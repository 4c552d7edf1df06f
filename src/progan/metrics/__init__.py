"""Numbers that say how near generated pictures are to real ones: images in, numbers out."""
