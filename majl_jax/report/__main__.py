"""A page about a run, report.html in its folder, or one about several: python -m majl_jax.report
RUN

Reads what is there (config.json, metrics.jsonl, <stage>/result.json, tracks.jsonl, examples/) and
leaves out what is not, so a run can be looked at while it goes on, or after it was killed. The page
holds its pictures and loads nothing; its players play the examples' WAV files beside it, with
--single_file their sound is in the page. Of several runs, comparison.html in the current folder
has the settings that differ, scores with their spread over seeds, and curves.
"""

import pathlib
import sys
from collections.abc import Sequence

from majl_jax import terminal


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: writes the page and prints its path."""
    parser = terminal.Parser(prog=terminal.program("report"), description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="the --workdir of a training run, or of several")
    add("--output", type=pathlib.Path, metavar="FILE", help="the page, in place of report.html")
    add("--single_file", action="store_true", help="a page that holds the sound of the examples")
    add("--debug", action="store_true", help=terminal.DEBUG_HELP)
    options = parser.parse_args(arguments)
    if len(options.runs) > 1 and options.single_file:
        parser.error("--single_file: the page of several runs holds no sound; leave the flag out")

    if len(options.runs) == 1:
        from majl_jax.report.run_page import write_report

        output, single = options.output, options.single_file
        print(write_report(options.runs[0], output=output, single_file=single))
    else:
        from majl_jax.report.comparison import write_comparison

        output = options.output or pathlib.Path("comparison.html")
        print(write_comparison(options.runs, output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
