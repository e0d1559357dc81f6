"""minibert: BERT and DistilBERT classifiers from official checkpoints, in plain PyTorch."""
