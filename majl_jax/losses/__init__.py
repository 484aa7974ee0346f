"""Losses: pure functions that return one value per example, with their equation and source."""
