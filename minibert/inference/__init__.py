"""From a trained classifier to predictions, fast on a CPU."""
