"""Hugging Face checkpoint folders: files to network and back."""
