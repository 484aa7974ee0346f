"""Every recipe's loss, gradient and new statistics are the same on one, two and four devices."""

import functools
import importlib.util
import pathlib

import jax
import made_music
import numpy as np
import pytest
from places import ROOT

from majl_jax import parallel
from majl_jax.recipes import jukebox, majl, mixit, ss_mpe, transfer

CONFIGS = ROOT / "configs"
EXAMPLES = 8
pytestmark = pytest.mark.slow


def _config(recipe, data, **fields):
    spec = importlib.util.spec_from_file_location(recipe, CONFIGS / f"{recipe}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("smoke")
    config.data.directory = str(data)
    for stage in config.stages.values():
        stage.update({k: v for k, v in {"batch_size": EXAMPLES}.items() if k in stage})
    with config.unlocked():
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


@functools.cache
def _program(loss, devices):
    """(state, batch) -> (state, (loss, gradient, new mutables)) as the step takes them on
    `devices` devices.
    """

    def each(state, batch):
        params, mutables = state

        def of(params):
            return loss(params, mutables, batch, jax.random.key(3))

        (value, (new, _)), gradient = jax.value_and_grad(of, has_aux=True)(params)
        return state, parallel.across((value, gradient, new))

    return parallel.sharded(each, parallel.mesh(jax.devices()[:devices]))


def _on(devices, loss, variables, batch):
    variables, mesh = dict(variables), parallel.mesh(jax.devices()[:devices])
    state = parallel.replicate((variables.pop("params"), variables), mesh)
    _, found = _program(loss, devices)(state, parallel.split(batch, mesh))
    return parallel.on_host(found)


def _flat(tree):
    leaves = [x for x in jax.tree.leaves(tree) if np.issubdtype(x.dtype, np.inexact)]
    return np.concatenate([np.ravel(x).astype(np.float64) for x in leaves]) if leaves else None


def _assert_agree(one, several, tolerances):
    assert np.isfinite(one[0]) and one[0] != 0
    for (part, tolerance), a, b in zip(tolerances.items(), one, several, strict=True):
        a, b = _flat(a), _flat(b)
        if a is None:
            continue
        difference = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert difference < tolerance, f"{part} differs by {difference:.2g}"


def _agree(
    loss, variables, batch, order=lambda devices: np.arange(EXAMPLES), counts=(2, 4), **tolerances
):
    """Compares some `counts` of devices with one; `order` puts the examples to the devices."""
    tolerances = {"loss": 1e-5, "gradient": 1e-5, "statistics": 1e-5, **tolerances}
    one = _on(1, loss, variables, batch)
    assert np.linalg.norm(_flat(one[1])) > 0
    for devices in counts:
        mine = {name: value[order(devices)] for name, value in batch.items()}
        _assert_agree(one, _on(devices, loss, variables, mine), tolerances)


def _first(batches):
    return {k: np.array(v) for k, v in next(iter(batches)).items()}


def _unlabel(batch, **unknown):
    """The batch without the labels `name=(example, ...)`."""
    batch = {k: v.copy() for k, v in batch.items()}
    for name, examples in unknown.items():
        batch[name][list(examples)] = False
    return batch


LABELS = {
    "all": (),
    "a device has none": (3, 4, 5, 6, 7),
    "unlike shares": (1, 2, 7),
}
# A worker compiles the programs of a recipe once: its tests stay together.
labels = pytest.mark.parametrize("missing", LABELS.values(), ids=LABELS)


# ---- MAJL ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def choir(tmp_path_factory):
    return made_music.prepare(tmp_path_factory.mktemp("majl"))


UNET = ("unet", "crepe", "teacher")
# HarmoF0 hears the true voice: decibels of an estimate that is nearly silent have gradients that
# roundings decide.
RESUNET = ("resunet", "harmof0", "pipeline")


@functools.cache
def _majl(data, separator, pitch, run):
    config = _config("majl", data, separator=separator, pitch=pitch, run=(run,))
    config.unet.dropout = config.crepe.dropout = 0.0
    (stage,) = majl.stages(config, pathlib.Path())
    return stage.loss, stage.init(jax.random.key(1), None), _first(stage.batches(None))


@pytest.mark.xdist_group("devices_majl")
@labels
def test_majl(choir, missing):
    _majl_agrees(choir, *UNET, missing)


# Other networks under the same loss: once, on the most devices.
@pytest.mark.xdist_group("devices_majl")
def test_majl_of_other_networks(choir):
    _majl_agrees(choir, *RESUNET, LABELS["unlike shares"], counts=(4,))


def _majl_agrees(choir, separator, pitch, run, missing, counts=(2, 4)):
    loss, variables, batch = _majl(choir, separator, pitch, run)
    labelled = _unlabel(batch, has_stems=missing[:2], has_pitch=missing)
    # Roundings grow to 1.1e-5 of the gradient in the 27 normalisations of the ResUNet.
    gradient = 2e-5 if separator == "resunet" else 1e-5
    _agree(loss, variables, labelled, counts=counts, gradient=gradient)


# ---- Transfer -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stems(tmp_path_factory):
    return made_music.prepare_transfer(tmp_path_factory.mktemp("transfer"))


@functools.cache
def _transfer(data, number, **fields):
    stage = transfer.stages(_config("transfer", data, **fields), pathlib.Path())[number]
    return stage.loss, stage.init(jax.random.key(1), None), _first(stage.batches(None))


@pytest.mark.xdist_group("devices_transfer")
@pytest.mark.parametrize("number", [0, 1], ids=["pretrain", "finetune"])
@labels
def test_transfer(stems, number, missing):
    loss, variables, batch = _transfer(stems, number, network__dropout=0.0)
    _agree(loss, variables, _unlabel(batch, has_stems=missing))


@pytest.mark.xdist_group("devices_transfer")
def test_transfer_drops_other_units_on_every_device(stems):
    """Both devices hear the same; with one key their states would be equal too."""
    loss, variables, batch = _transfer(stems, 0, network__dropout=0.5, network__layers=2)
    batch = {name: value[:2] for name, value in batch.items()}
    for name in ("stems", "has_stems"):
        batch[name] = batch[name][[0, 0]]
    variables, mesh = dict(variables), parallel.mesh(jax.devices()[:2])

    def each(state, batch):
        value = loss(*state, batch, jax.random.key(3))[0]
        return state, jax.lax.all_gather(value, parallel.AXIS)

    state = parallel.replicate((variables.pop("params"), variables), mesh)
    _, values = parallel.sharded(each, mesh)(state, parallel.split(batch, mesh))
    first, second = parallel.on_host(values)
    assert abs(first - second) > 1e-4 * abs(first)


# ---- MixIT --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def band(tmp_path_factory):
    return made_music.prepare_mixit(tmp_path_factory.mktemp("mixit"))


@functools.cache
def _mixit(data, name):
    config = _config(
        "mixit", data, run=(name,), network__dropout=0.0, stages__scratch__mixing="none"
    )
    (stage,) = mixit.stages(config, pathlib.Path())
    return stage.loss, stage.init(jax.random.key(1), None), _first(stage.batches(None))


@pytest.mark.xdist_group("devices_mixit")
def test_mixit_on_mixtures(band):
    def pairs(devices):
        """Partners, i and i + 4 of the whole batch, on one device."""
        halves = np.arange(EXAMPLES).reshape(2, devices, -1)
        return halves.swapaxes(0, 1).reshape(-1)

    _agree(*_mixit(band, "pretrain"), order=pairs)


@pytest.mark.xdist_group("devices_mixit")
@labels
def test_mixit_on_stems(band, missing):
    loss, variables, batch = _mixit(band, "scratch")
    _agree(loss, variables, _unlabel(batch, has_stems=missing))


# ---- Jukebox ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    return made_music.prepare_jukebox(tmp_path_factory.mktemp("jukebox"))


@functools.cache
def _jukebox(data, name):
    config = _config("jukebox", data)
    stages = {stage.name: stage for stage in jukebox.stages(config, pathlib.Path())}
    previous = stages["vqvae"].init(jax.random.key(1), None) if name == "encoder" else None
    stage = stages[name]
    return stage.loss, stage.init(jax.random.key(2), previous), _first(stage.batches(None))


@pytest.mark.xdist_group("devices_jukebox")
@pytest.mark.parametrize("name", ["music", "vqvae", "encoder"])
@labels
def test_jukebox(coded, name, missing):
    loss, variables, batch = _jukebox(coded, name)
    # An untrained encoder's latents are so alike that roundings turn the nearest code of a few of
    # its 2,048 tokens; test_vector_quantizer.py has codes that are apart.
    tolerance = 1e-2 if name != "encoder" else 1e-5
    _agree(loss, variables, _unlabel(batch, has_stems=missing), statistics=tolerance)


# ---- SS-MPE -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    return made_music.prepare_multi_pitch(tmp_path_factory.mktemp("ss_mpe"))


@functools.cache
def _ss_mpe(data):
    config = _config("ss_mpe", data, run=("reference",))
    config.stages.reference.update(labelled=4, unlabelled=4)
    config.data.unlabelled = "quartets_unlabelled: 3, drums: 1"
    (stage,) = ss_mpe.stages(config, pathlib.Path())
    return stage.loss, stage.init(jax.random.key(1), None), _first(stage.batches(None))


@pytest.mark.xdist_group("devices_ss_mpe")
@labels
def test_ss_mpe(notes, missing):
    loss, variables, batch = _ss_mpe(notes)
    batch["has_pitch"][:] = True
    _agree(loss, variables, _unlabel(batch, has_pitch=missing))
