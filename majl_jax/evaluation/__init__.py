"""Trained systems scored on whole tracks and on excerpts."""
