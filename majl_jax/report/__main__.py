"""One page about a run, report.html in its folder: python -m majl_jax.report WORKDIR

Reads what is there (config.json, metrics.jsonl, <stage>/result.json, tracks.jsonl, examples/) and
leaves out what is not, so a run can be looked at while it goes on, or after it was killed. The page
holds its pictures and loads nothing; its players play the examples' WAV files beside it.
"""

import argparse
import sys
from collections.abc import Sequence

from majl_jax import terminal
from majl_jax.report.run_page import write_report


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: writes the page and prints its path."""
    parser = argparse.ArgumentParser(prog=terminal.program("report"), description=__doc__)
    parser.add_argument("workdir", help="the --workdir of a training run")
    parser.add_argument("--debug", action="store_true", help=terminal.DEBUG_HELP)
    print(write_report(parser.parse_args(arguments).workdir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
