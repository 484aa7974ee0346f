"""One file per paper: its stages as plain functions."""
