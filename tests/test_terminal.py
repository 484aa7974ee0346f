"""Commands say an error in one line, on any console; --debug shows where it came from."""

import io
import sys

import pytest

from majl_jax import terminal


def failing(error):
    @terminal.command
    def main(arguments):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a is 3: expected 4"), "a is 3: expected 4"),
        (FileNotFoundError("no set in a/b. Make it with:\n  python -m x"), None),
        (RuntimeError("b has:\n  x: 1\n  y: 2\n\nUse c"), "b has: x: 1; y: 2; Use c"),
        (
            FileNotFoundError(2, "No such file or directory", "a.txt"),
            "a.txt: No such file or directory",
        ),
        (OSError(28, "could not write a: the disk is full"), "could not write a: the disk is full"),
        (KeyError("no split 'x'"), "KeyError: no split 'x' (--debug shows where)"),
        (TypeError(), "TypeError: no more is known (--debug shows where)"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero (--debug shows where)"),
        (RuntimeError("x" * 5000), f"{'x' * 2000} … (all of it with --debug)"),
    ],
)
def test_an_error_is_one_line(error, said, capsys):
    assert failing(error)([]) == 1
    out, told = capsys.readouterr()
    said = said or "no set in a/b. Make it with: python -m x"
    assert (out, told) == ("", f"error: {said}\n")


def test_with_debug_it_is_a_traceback(monkeypatch):
    with pytest.raises(ValueError, match="no"):
        failing(ValueError("no"))(["--debug"])
    monkeypatch.setattr(sys, "argv", ["command", "--debug"])
    with pytest.raises(ValueError, match="no"):
        failing(ValueError("no"))()


def test_ctrl_c_is_no_error(capsys):
    assert failing(KeyboardInterrupt())([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_console_without_the_letters_prints_them_otherwise(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="ascii"))
    assert failing(ValueError("Müll \udcff"))([]) == 1
    sys.stderr.flush()
    assert written.getvalue() == b"error: M\\xfcll \\udcff\n"


def test_flags_are_spelt_as_fields_of_configs_and_hyphens_are_taken_for_it():
    parser = terminal.Parser()
    parser.add_argument("--dry_run", action="store_true")
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("songs", nargs="*")
    found = parser.parse_args(["--dry-run", "--batch-size=-3", "a-b.wav", "--", "--no-song"])
    assert (found.dry_run, found.batch_size) == (True, -3)
    assert found.songs == ["a-b.wav", "--no-song"]
    assert parser.parse_args(["--dry_run"]).dry_run
    words = ["x", "--print-config", "--config.a.b_c=d-e", "-s", "no-flag", "--set=--a-b=c"]
    spelt = ["x", "--print_config", "--config.a.b_c=d-e", "-s", "no-flag", "--set=--a-b=c"]
    assert terminal.one_spelling(words) == spelt
