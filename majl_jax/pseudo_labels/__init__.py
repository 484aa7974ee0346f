"""A teacher applied to data sets: what it labels, and what of that is kept."""
