"""Data sets that are rendered here, from scores and samples: synthetic music."""
