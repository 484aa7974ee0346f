"""Rendering of the built-in data sets: scores to performances to sound."""
