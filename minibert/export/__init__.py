"""A trained classifier as files that other programs run."""
