"""A run folder to report.html."""
