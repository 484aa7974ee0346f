"""MixIT's stages: what is handed over, which outputs become which stems, and what a wrong config
is told.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke_runs
from places import GOLDEN

from majl_jax import weights
from majl_jax.audio import files
from majl_jax.losses import mixit as losses
from majl_jax.models.band_split import select_outputs
from majl_jax.prepare import __main__ as prepare
from majl_jax.recipes import mixit
from majl_jax.separate import __main__ as separate
from majl_jax.training import restore

pytestmark = pytest.mark.xdist_group("mixit")  # one worker makes what they share


@pytest.fixture(scope="module")
def data(smoke):
    return smoke.data("mixit")


@pytest.fixture(scope="module")
def run(smoke):
    """A whole run, and its config."""
    return smoke.run("mixit")[:2]


def _config(data, preset="smoke", **fields):
    config = smoke_runs.load_config("mixit", preset)
    config.data.directory = str(data)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def _opened(data, name, **fields):
    return mixit._open(_config(data, **fields), name, pathlib.Path())


def _batch(setting):
    return jax.tree.map(jnp.asarray, next(iter(mixit._batches(setting, "train"))))


@pytest.mark.slow
def test_the_stems_get_the_outputs_that_were_voted_for(run):
    workdir, config = run
    heads = json.loads((workdir / "supervised/heads.json").read_text())
    assert heads["stems"] == ["bass", "drums", "other"] and len(set(heads["heads"])) == 3
    assert np.sum(heads["votes"]) == 3 * heads["segments"] > 0
    assert heads == json.loads((workdir / "pretrain/heads.json").read_text())
    before, _ = restore.load_variables(workdir, "pretrain")
    stage = mixit.stages(config, workdir)[1]
    after = stage.init(jax.random.key(9), before)["params"]
    for name in ("encoder", "layers"):
        jax.tree.map(np.testing.assert_array_equal, after[name], before["params"][name])
    # The sliced network gives the chosen outputs, the same to the last bit of float32 sums.
    audio = jnp.asarray(np.random.default_rng(0).normal(0, 0.1, (1, 4096, 1)), jnp.float32)
    all_outputs = mixit.separator(config, mixit.build(config, "pretrain")).separate(before, audio)
    chosen = mixit.separator(config, mixit.build(config, "supervised")).separate(
        {"params": after}, audio
    )
    assert all_outputs.shape == (1, 4096, 4, 1) and chosen.shape == (1, 4096, 3, 1)
    np.testing.assert_allclose(chosen, all_outputs[:, :, np.array(heads["heads"])], atol=1e-6)


@pytest.mark.slow
def test_what_validates_best_is_handed_over_of_last_best_and_their_mean(run):
    workdir, _ = run
    result = json.loads((workdir / "pretrain/result.json").read_text())
    scores = {tuple(one["steps"]): one["minus_loss"] for one in result["candidates"]}
    tried = {tuple(sorted(steps)) for steps in scores}
    assert {(2,), (1, 2)} <= tried <= {(1,), (2,), (1, 2)}  # the last, the mean, and another best
    steps = tuple(result["steps"])
    assert scores[steps] == max(scores.values())
    handed, _ = restore.load_variables(workdir, "pretrain")
    each = [restore.load_step(workdir, "pretrain", step)[0]["params"] for step in steps]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *each)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), handed["params"], mean
    )
    two = restore.load_step(workdir, "pretrain", 2)[0]
    last, _ = restore.load_variables(workdir, "pretrain", "last")
    jax.tree.map(np.testing.assert_array_equal, last["params"], two["params"])


@pytest.mark.slow
def test_both_stages_are_scored_on_whole_songs(run):
    workdir, _ = run
    for stage in ("pretrain", "supervised"):
        rows = [json.loads(line) for line in (workdir / stage / "tracks.jsonl").open()]
        assert {row["system"] for row in rows} == {stage, "mixture"}
        assert all(np.isfinite(row["usdr_db"]) for row in rows)
        written = {path.stem for path in (workdir / stage / "examples").glob("*/*.wav")}
        assert {"mixture", "bass_estimate", "drums_truth"} <= written


@pytest.mark.slow
def test_the_loss_of_pretraining_is_that_of_the_sums_of_two_segments(data):
    setting = _opened(data, "pretrain", stages__pretrain__snr_db=(0.0, 0.0))
    network = setting.separator.network
    variables = network.init(jax.random.key(1), jnp.zeros((1, 1, 2, 257), jnp.complex64))
    batch, key = _batch(setting), jax.random.key(2)
    found, terms = jax.jit(lambda v, b: mixit._terms(setting, v, b, key))(variables, batch)
    segments = batch["stems"].astype(jnp.float32).sum(2) / 32768
    first, second = np.asarray(segments[:4]), np.asarray(segments[4:])
    ratio = (second**2).mean((1, 2)) / (first**2).mean((1, 2))
    first = first * np.sqrt(ratio)[:, None, None]
    estimates = setting.separator.separate(variables, jnp.asarray(first + second))
    expected, _ = losses.mixit(estimates, jnp.stack([first, second], 2))
    np.testing.assert_allclose(found, expected.mean(), atol=1e-2)  # 1e-8 in the logarithms differs
    assert 0 <= terms["one_sided"] <= 1


@pytest.mark.slow
def test_unknown_stems_do_not_count_and_dynamic_mixing_is_for_training_alone(data):
    setting = _opened(data, "scratch", stages__scratch__mixing="none")
    network = setting.separator.network
    variables = network.init(jax.random.key(1), jnp.zeros((1, 1, 2, 257), jnp.complex64))
    batch = _batch(setting)

    def loss(setting, train=False, **changed):
        found, terms = mixit._terms(
            setting, variables, {**batch, **changed}, jax.random.key(0), train=train
        )
        np.testing.assert_allclose(
            found, np.mean([terms[n] for n in ("bass", "drums", "other")]), rtol=1e-5
        )
        return float(found)

    known = np.ones_like(batch["has_stems"])
    whole = loss(setting)
    half = loss(setting, has_stems=jnp.asarray(known).at[4:].set(False))
    other = loss(setting, has_stems=jnp.asarray(known).at[:4].set(False))
    assert half != other
    np.testing.assert_allclose(whole, (half + other) / 2, rtol=1e-5)
    assert loss(setting, has_stems=jnp.zeros_like(batch["has_stems"])) == 0
    np.testing.assert_allclose(loss(setting, train=True), whole, rtol=1e-5)
    dynamic = _opened(data, "scratch")
    one = jnp.asarray(known).at[1:].set(False)
    mixed = loss(
        dynamic, train=True, has_stems=one
    )  # all examples are made of the one that is known
    assert np.isfinite(mixed) and mixed != 0
    np.testing.assert_allclose(loss(dynamic), whole, rtol=1e-5)
    assert abs(loss(dynamic, train=True) - whole) > 0.01


@pytest.mark.slow
def test_supervised_starts_from_a_file_of_weights(data, tmp_path):
    config = _config(data)
    network = mixit.build(config, "supervised")
    stems = network.init(jax.random.key(5), jnp.zeros((1, 1, 2, 257), jnp.complex64))
    weights.save(stems, tmp_path / "stems.npz")
    fields = {"run": ("supervised",), "stages__supervised__start": str(tmp_path / "stems.npz")}
    (stage,) = mixit.stages(_config(data, **fields), tmp_path)
    found = stage.init(jax.random.key(0), None)
    heads = json.loads((tmp_path / "supervised/heads.json").read_text())["heads"]
    assert sorted(heads) == [0, 1, 2]  # as many outputs as stems may still stand in another order
    ordered = select_outputs(stems["params"], heads)
    jax.tree.map(np.testing.assert_array_equal, found["params"], ordered)
    (stage,) = mixit.stages(_config(data, **fields, network__features=12), tmp_path)
    with pytest.raises(ValueError, match=r"stems.npz has the shape .* for decoder/group0_first"):
        stage.init(jax.random.key(0), None)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run", ("supervised",), "supervised has to follow pretrain directly, or"),
        (
            "run",
            ("pretrain", "scratch", "supervised"),
            "supervised has to follow pretrain directly",
        ),
        (
            "stages__supervised__start",
            str(GOLDEN / "unet_chainer.npz"),
            "supervised starts from one of both",
        ),
        ("stages__supervised__batch_size", 4, "a multiple of 4 from 8 on .* two or more on a dev"),
        ("run", ("train",), "expected some of pretrain, supervised, scratch"),
        (
            "stages__supervised__mixing",
            "random",
            "mixing is 'random'; expected one of dynamic, none",
        ),
        ("stages__pretrain__assignment", "best", "expected one of exhaustive, least_squares"),
        (
            "stages__pretrain__batch_size",
            6,
            "is 6, over 4 devices; expected a multiple of 8",
        ),
        ("stages__supervised__start", "none.npz", "none.npz, which is no file"),
        ("network__outputs", 2, "at least one for each of the stems bass, drums, other"),
        ("data__segment_samples", 4000, "a multiple of config.data.hop_samples = 128"),
        ("data__segment_samples", 25_600, "longer --record_seconds"),
        (
            "data__sample_rate_hz",
            16_000,
            "sample_rate_hz = 8000, config.data.sample_rate_hz is 16000",
        ),
        ("data__channels", 2, "prepared with channels = 1, config.data.channels is 2"),
        ("data__unlabelled", "band,fma", "No prepared data set in"),
        ("data__labelled", "few/band: bass, vocals", "sources name vocals"),
        ("network__bands", (2, 4), "bands of 6 bins"),
    ],
)
def test_a_wrong_config_is_refused_before_training(data, field, value, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        mixit.stages(_config(data, **{field: value}), pathlib.Path())


@pytest.mark.slow
def test_a_folder_of_music_needs_no_validation_songs_beside_a_set_that_has_some(data, tmp_path):
    for number in range(2):
        audio = np.random.default_rng(number).normal(0, 0.1, (20_000, 1)).astype(np.float32)
        files.write_wav(tmp_path / f"{number}.wav", audio, sample_rate_hz=8000)
    options = ["--sample_rate_hz=8000", "--hop_samples=128", "--record_seconds=1.6"]
    command = ["--dataset=audio_folder", f"--source={tmp_path}", "--processes=1"]
    assert prepare.main([*command, *options, f"--output={data}"]) == 0
    with pytest.raises(ValueError, match="Prepare a folder of audio with subfolders train and val"):
        mixit.stages(_config(data, data__unlabelled="audio_folder"), tmp_path)
    config = _config(data, data__unlabelled="band,audio_folder", run=("pretrain",))
    (stage,) = mixit.stages(config, tmp_path)
    params = stage.init(jax.random.key(0), None)
    assert np.isfinite(stage.evaluate(params)["loss"])


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("paper_small", 29_544_552), ("paper", 52_721_960), ("paper_large", 117_018_152)],
)
def test_the_presets_have_the_published_sizes(preset, parameters):
    network = mixit.build(_config("nowhere", preset), "supervised")
    spectrum = jnp.zeros((1, 2, 4, 1025), jnp.complex64)
    shapes = jax.eval_shape(network.init, jax.random.key(0), spectrum)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.slow
def test_a_song_is_separated_by_a_run(run, tmp_path):
    workdir, _ = run
    song = np.random.default_rng(0).normal(0, 0.1, (30_000, 1)).astype(np.float32)
    song[8_000:20_000] = 0  # a silent segment among them
    files.write_wav(tmp_path / "song.wav", song, sample_rate_hz=8000)
    call = [str(tmp_path / "song.wav"), f"--checkpoint={workdir}", "--recipe=mixit"]
    assert separate.main([*call, f"--output={tmp_path / 'out'}"]) == 0
    names = {path.stem for path in (tmp_path / "out/song").glob("*.wav")}
    assert names == {"bass", "drums", "other", "rest"}
    total = sum(files.read(tmp_path / f"out/song/{name}.wav")[0] for name in names)
    np.testing.assert_allclose(total, song, atol=1e-4)
    assert separate.main([*call, "--stage=pretrain", f"--output={tmp_path / 'outputs'}"]) == 0
    names = {path.stem for path in (tmp_path / "outputs/song").glob("*.wav")}
    assert names == {*(f"output_{n}" for n in range(1, 5)), "rest"}
