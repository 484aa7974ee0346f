"""How long `separate` takes for a song, and where the time goes, for the model of every recipe.

    python -m benchmarks separate_song
    python -m benchmarks separate_song voice configs/majl.py:paper --seconds=30

`voice` is the model of the package; a config gives its last stage's network with fresh parameters,
which take as long as trained ones. The song is noise, 44.1 kHz, stereo. Times are by the clock,
after a first call that compiles; `rest` is what remains where the network is replaced by one that
gives its input back: reading, resampling, the band above the model's, pictures, writing.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.harness import comparison, measuring

RATE_HZ, SECONDS = 44_100, 180.0
PACKAGED = "voice"
PRESET = "quickstart"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The models and the song."""
    parser.add_argument("models", nargs="*", metavar="NAME or configs/NAME.py:PRESET")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the song")
    comparison.add_child_options(parser, cores=0)


def run(options: argparse.Namespace) -> int:
    """Measures every model and prints its row; the exit status."""
    if options.child:
        comparison.write_report(options, measure(options.child, options.seconds))
        return 0
    print("| model | rate | first call | a song | times real time | network | rest | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for model in options.models or default_models():
        with tempfile.TemporaryDirectory() as folder:
            found = comparison.child(options, pathlib.Path(folder), model)
        network = found["s"] - found["rest_s"]
        print(
            f"| {model} | {found['rate_hz']} Hz | {found['first_s']:.1f} s | {found['s']:.1f} s "
            f"| **{options.seconds / found['s']:.1f}** | {network:.1f} s | {found['rest_s']:.1f} s "
            f"| {found['mib']:.0f} MiB |",
            flush=True,
        )
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps({"model": model, "seconds": options.seconds, **found}) + "\n")
    return 0


def default_models() -> list[str]:
    """The packaged one, and each recipe's quick start that separates."""
    names = sorted(path.stem for path in (comparison.ROOT / "configs").glob("*.py"))
    return [PACKAGED, *(f"configs/{name}.py:{PRESET}" for name in names if name != "ss_mpe")]


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Seconds of a first call, of one after it, and of one without the network; peak memory."""
    from majl_jax.separate import stems

    model, variables = _voice(name) if not name.startswith("configs/") else _fresh(name)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        _write_song(folder / "song.wav", seconds)

        def call(with_model: Any, given: Any) -> float:
            began = time.perf_counter()
            options = stems.Options(threshold=with_model.threshold, overwrite=True)
            stems.separate_file(folder / "song.wav", folder / "out", with_model, given, options)
            return time.perf_counter() - began

        first_s, again_s = call(model, variables), call(model, variables)
        mib = measuring.status_mib("VmHWM")
        blank = _without_network(model)
        call(blank, {})
        rest_s = call(blank, {})
    return {
        "rate_hz": model.sample_rate_hz,
        "first_s": first_s,
        "s": again_s,
        "rest_s": rest_s,
        "mib": mib,
    }


def _write_song(path: pathlib.Path, seconds: float) -> None:
    """A song of noise. Its samples are gone afterwards, and the peak of the memory starts anew."""
    import scipy.io.wavfile

    noise = np.random.default_rng(0).normal(size=(int(seconds * RATE_HZ), 2)) * 0.1
    scipy.io.wavfile.write(path, RATE_HZ, noise.astype(np.float32))
    del noise
    measuring.start_peak()


def _voice(name: str) -> tuple[Any, Any]:
    from majl_jax.separate import loading

    model, variables, _ = loading.find(name)
    return model, variables


def _fresh(name: str) -> tuple[Any, Any]:
    """The model of a config, and the first parameters of the stage that it separates with."""
    import jax

    from benchmarks.harness import on_shapes
    from benchmarks.train_step import config_of

    config = config_of(name, [])
    last = config.run[-1]
    with tempfile.TemporaryDirectory() as folder:
        made = on_shapes.stages(config, pathlib.Path(folder))
        stage = next(one.stage for one in made if one.stage.name == last)
        variables = stage.init(jax.random.key(0), None)
    recipe: Any = importlib.import_module(f"majl_jax.recipes.{config.recipe}")
    return recipe.segment_model(config), variables


def _without_network(model: Any) -> Any:
    """The same, but for a network that gives every stem the mixture, and no pitch."""
    import jax.numpy as jnp

    def apply(variables: Any, audio: Any) -> dict[str, Any]:
        del variables
        found = {}
        if model.stems:
            found["stems"] = jnp.repeat(audio[:, :, None], len(model.stems), axis=2)
        if model.bin_cents is not None:
            shape = (len(audio), audio.shape[1] // model.hop_samples, len(model.bin_cents))
            found["salience"] = jnp.zeros(shape)
        return found

    return dataclasses.replace(model, apply=apply, for_song=None)
