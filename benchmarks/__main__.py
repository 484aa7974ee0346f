"""Time and memory of the parts of majl_jax, most of them against another library.

python -m benchmarks --list
python -m benchmarks NAME --help
"""

import argparse
import ast
import importlib
import pathlib
import sys
from collections.abc import Sequence

from majl_jax import terminal

HERE = pathlib.Path(__file__).resolve().parent


def benchmarks() -> dict[str, str]:
    """The modules beside this file, and what each says of itself; none is imported."""
    return {
        path.stem: ast.get_docstring(ast.parse(path.read_text())) or ""
        for path in sorted(HERE.glob("*.py"))
        if not path.stem.startswith("__")
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of one benchmark, which alone is imported."""
    found = benchmarks()
    raw = argparse.RawDescriptionHelpFormatter
    parser = terminal.Parser(prog="python -m benchmarks", description=__doc__, formatter_class=raw)
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("benchmark", nargs="?", metavar="NAME", choices=found)
    options = parser.parse_args(arguments[:1])
    if options.list:
        return options
    if options.benchmark is None:
        parser.error(f"which benchmark? There are {', '.join(found)}; or --list")
    module = importlib.import_module(f"benchmarks.{options.benchmark}")
    parser = terminal.Parser(
        prog=f"python -m benchmarks {options.benchmark}",
        description=found[options.benchmark],
        formatter_class=raw,
    )
    module.add_options(parser)
    parser.add_argument("--debug", action="store_true", help=terminal.DEBUG_HELP)
    parser.set_defaults(benchmark=options.benchmark, command=tuple(arguments), list=False)
    options = parser.parse_args(arguments[1:])
    options.run = module.run
    return options


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one benchmark; the exit status, 1 where results disagree."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if not options.list:
        return options.run(options)
    for name, words in benchmarks().items():
        print(f"{name:<20}{words.partition(chr(10))[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
