"""A trained model in one file: parameters and statistics, config and card; no optimizer state, no
pickle.

    python -m majl_jax.export runs/majl --output=voice.safetensors

`majl_jax.separate --checkpoint=voice.safetensors` and `majl_jax.load("voice.safetensors")` take it.
With --output=hf://OWNER/NAME it goes to a repository of the hub, with its card.
"""

import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from majl_jax import terminal


@terminal.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the model file; returns the exit code."""
    summary = " ".join((__doc__ or "").partition("\n\n")[0].split())
    parser = terminal.Parser(prog=terminal.program("export"), description=summary)
    add = parser.add_argument
    add("run", metavar="RUN", help="the --workdir of a training run, or RUN:STAGE")
    add("--output", required=True, help="file to write, .safetensors, or hf://OWNER/NAME")
    add("--which", choices=("best", "last"), default="best", help="checkpoint of the stage")
    add("--licence", default="", help="of the parameters, for the card, as CC-BY-4.0")
    add("--overwrite", action="store_true", help="replace the file if it is there")
    add("--debug", action="store_true", help=terminal.DEBUG_HELP)
    options = parser.parse_args(arguments)
    path = pathlib.Path(options.output)
    if path.exists() and not options.overwrite:
        raise FileExistsError(f"{path} exists already: pass --overwrite to replace it")

    from majl_jax.separate import hub, loading, model_file

    model, variables, info = loading.find(options.run, which=options.which)
    if not info.config:
        raise ValueError(
            f"{options.run} is not one run ({info.about}): expected the --workdir of one, or "
            "RUN:STAGE"
        )
    info = dataclasses.replace(
        info,
        about=info.about.partition(" of ")[0],
        licence=options.licence or info.licence,
        config=_without_places(info.config),
    )
    needed = model_file.needed(model, variables)
    with tempfile.TemporaryDirectory() as folder:
        to_hub = hub.is_address(options.output)
        path = pathlib.Path(folder) / hub.FILE if to_hub else path
        model_file.write(path, needed, info)
        size = path.stat().st_size / 1e6
        if to_hub:
            hub.publish(path, options.output, info)
    print(f"{options.output}: {info}; {size:.1f} MB; {loading.gives(model)}")
    if not info.licence:
        print("no licence is stated: --licence=NAME puts one on the card", file=sys.stderr)
    return 0


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the folder of the data, and without the runs and files that stages started
    from; places say nothing on another machine.
    """
    found, data = {**config}, config.get("data", {})
    if "directory" in data:
        found["data"] = {**data, "directory": ""}
    if "stages" in config:
        found["stages"] = {
            name: {**stage, "start": _names_in(stage["start"])} if "start" in stage else stage
            for name, stage in config["stages"].items()
        }
    return found


def _names_in(start: str) -> str:
    """Of the sources that a stage started from, those that are called the same everywhere, as
    `previous` and `pitch=crepe-tiny`.
    """
    from majl_jax.separate import published

    known = ("previous", *published.NAMES)
    entries = (entry.strip() for entry in start.split(","))
    return ",".join(one for one in entries if one.rpartition("=")[2].strip() in known)


if __name__ == "__main__":
    sys.exit(main())
