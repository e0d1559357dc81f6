"""minibert: BERT and DistilBERT classifiers from official checkpoints, in plain PyTorch."""

__version__ = "0.1.0"
