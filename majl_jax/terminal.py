"""The console takes any text."""

import io
import sys


def print_anything() -> None:
    """From now on, what the console's encoding lacks is printed as \\udc.. or the like."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
