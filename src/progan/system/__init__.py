"""What any program needs, and nothing of images: files, devices, threads, signals."""
