"""What all commands share: any text is printed, and an error is one line and exit code 1."""

import argparse
import functools
import importlib
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

DEBUG_HELP = "show where an error came from"
# Errors whose text says what is wrong; of others the name of the class is a part of it.
_SPEAKING = (OSError, ValueError, RuntimeError, ImportError)
_LONGEST = 2000

Arguments = Sequence[str] | None
PROGRAM = "majl-jax"
COMMANDS = {
    "main": "train every stage of a recipe, evaluate it, report",
    "prepare": "a data set on disk to what training reads",
    "separate": "audio files to stems, pitch, notes and pictures",
    "report": "a run to a page with curves, scores and sound",
    "weights": "published weights to our parameters",
    "export": "a trained model in one file",
}


def program(name: str) -> str:
    """How a command was called: `majl-jax NAME`, or as a module."""
    called = f"{PROGRAM} {name}"
    return called if sys.argv[0] == called else f"python -m majl_jax.{name}"


def print_anything() -> None:
    """From now on, what the console's encoding lacks is printed as \\udc.. or the like."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def one_spelling(words: Sequence[str]) -> list[str]:
    """Words of a command line whose flags say --like_this, as fields of configs do: --like-this is
    taken for it.
    """
    spelt = []
    for place, word in enumerate(words):
        if word == "--":
            return [*spelt, *words[place:]]
        name, equals, value = word.partition("=")
        flag = name.startswith("--")
        spelt.append(f"--{name[2:].replace('-', '_')}{equals}{value}" if flag else word)
    return spelt


class Parser(argparse.ArgumentParser):
    """One that takes --like-this for --like_this."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of argparse."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args(one_spelling(words), namespace)


def command(main: Callable[[Arguments], int]) -> Callable[..., int]:
    """Makes a command of a function of the command line's arguments that returns the exit code.

    An error is one line on the screen, and 1; with --debug, which the function's parser has to
    know, its traceback. Ctrl-C: 130.
    """

    @functools.wraps(main)
    def run(arguments: Arguments = None) -> int:
        print_anything()
        try:
            return main(arguments)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            if "--debug" in (sys.argv[1:] if arguments is None else arguments):
                raise
            print(f"error: {in_one_line(error)}", file=sys.stderr)
            return 1

    return run


def in_one_line(error: BaseException) -> str:
    """What an error says, its lines joined; with its class where that alone tells what it is."""
    text = str(error)
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
    elif isinstance(error, OSError) and error.strerror:
        named = "" if error.filename is None else f"{error.filename}: "
        text = f"{named}{error.strerror}"
    joined = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        joined += ("" if not joined else " " if joined[-1] in ".,:;" else "; ") + line
    if len(joined) > _LONGEST:
        joined = f"{joined[:_LONGEST]} … (all of it with --debug)"
    if isinstance(error, _SPEAKING) and joined:
        return joined
    return f"{type(error).__name__}: {joined or 'no more is known'} (--debug shows where)"


def main(arguments: Arguments = None) -> int:
    """`majl-jax COMMAND ...`, the same as `python -m majl_jax.COMMAND ...`: runs a command.

    Returns its exit code, 2 for a command that there is not.
    """
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
    return f"majl_jax.{name}" if name == "main" else f"majl_jax.{name}.__main__"
