"""A trained network on whole songs: segments, context, decoding."""
