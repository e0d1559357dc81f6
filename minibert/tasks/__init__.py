"""What a model predicts: one class, several classes, or numbers."""
