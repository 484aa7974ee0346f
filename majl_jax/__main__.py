"""All commands by one name.

majl-jax COMMAND ...        the same as python -m majl_jax.COMMAND ...
"""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "main": "train every stage of a recipe, evaluate it, report",
    "prepare": "a data set on disk to what training reads",
    "separate": "audio files to stems, pitch, notes and pictures",
    "report": "a run to a page with curves, scores and sound",
    "weights": "published weights to our parameters",
    "export": "a trained model in one file",
}
PROGRAM = "majl-jax"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit code, 2 for one that there is not."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, *words = given or ["--help"]
    if name in COMMANDS:
        # What a command is called by, and where absl looks for its flags.
        sys.argv = [f"{PROGRAM} {name}", *words]
        return importlib.import_module(_module(name)).main()
    asked = name in ("--help", "-h")
    lines = [f"  {one:10}{what}" for one, what in COMMANDS.items()]
    text = "\n".join([f"usage: {PROGRAM} COMMAND ...", "", *lines, "", "COMMAND --help says more."])
    if not asked:
        text = f"error: {PROGRAM} has no command {name!r}; expected one of {', '.join(COMMANDS)}"
    print(text, file=sys.stdout if given and asked else sys.stderr)
    return 0 if given and asked else 2


def _module(name: str) -> str:
    """The module of a command: a package has it in its `__main__`."""
    alone = name in ("main", "export")
    return f"majl_jax.{name}" if alone else f"majl_jax.{name}.__main__"


if __name__ == "__main__":
    sys.exit(main())
