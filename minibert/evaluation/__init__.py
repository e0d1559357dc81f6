"""Figures from logits and labels."""
