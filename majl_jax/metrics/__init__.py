"""Scores of separation and of pitch in NumPy and float64, as the field defines them."""
