"""Labels of pictures: from folders, from files beside them, or from inside their source."""
