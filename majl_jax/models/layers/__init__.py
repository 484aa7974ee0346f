"""Layers that several networks share, or that are large enough for a file of their own."""
