"""Figures, texts and files, made from records."""
