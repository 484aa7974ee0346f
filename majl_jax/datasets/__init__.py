"""Data sets: one reader per data set, one builder for all, the input from disk or memory."""
