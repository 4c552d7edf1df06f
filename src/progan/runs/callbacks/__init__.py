"""What follows a run without changing it: TensorBoard, trackers, files, and callbacks of one's own."""
