"""Transfer's stages: what moves, what is handed over, and what a wrong config is told."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke_runs

from majl_jax.audio import files
from majl_jax.recipes import transfer
from majl_jax.separate import __main__ as separate
from majl_jax.training import restore

pytestmark = pytest.mark.xdist_group("transfer")  # one worker makes what they share


@pytest.fixture(scope="module")
def data(smoke):
    return smoke.data("transfer")


def _config(data, **fields):
    config = smoke_runs.load_config("transfer", "smoke")
    config.data.directory = str(data)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


MASK = {
    "stages__finetune__trained": "mask",
    "stages__finetune__weights__deep_clustering": 0.0,
    "stages__finetune__weights__mask_inference": 1.0,
}


def _variables(stage, previous=None):
    variables = dict(stage.init(jax.random.key(3), previous))
    return variables.pop("params"), variables


def _batch(stage):
    return jax.tree.map(jnp.asarray, next(iter(stage.batches(None))))


def test_fine_tuning_takes_over_all_but_the_masks(data):
    pretrain, finetune = transfer.stages(_config(data), pathlib.Path())
    params, statistics = _variables(pretrain)
    moved = {"params": jax.tree.map(lambda x: x + 1, params), **statistics}
    filled, _ = _variables(finetune, moved)
    fresh, _ = _variables(finetune)
    assert "mask" not in params and set(filled) == {*params, "mask"}
    for name in params:
        jax.tree.map(np.testing.assert_array_equal, filled[name], moved["params"][name])
    jax.tree.map(np.testing.assert_array_equal, filled["mask"], fresh["mask"])
    assert filled["mask"]["kernel"].shape == (16, 257 * 2)


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "moves"), [("eval", False), ("train", True)])
def test_a_mask_layer_alone_has_gradients_and_its_trunk_s_statistics_stand_still(
    data, trunk, moves
):
    stages = transfer.stages(_config(data, frozen_trunk=trunk, **MASK), pathlib.Path())
    assert stages[1].trainable == (("mask/.*", True), (".*", False))
    params, mutables = _variables(stages[1])
    loss, batch = stages[1].loss, _batch(stages[1])  # a partial function: without its device axis

    def total(params):
        return loss.func(*loss.args, params, mutables, batch, jax.random.key(0), axis=None)

    (value, (new, terms)), gradient = jax.value_and_grad(total, has_aux=True)(params)
    assert list(terms) == ["mask_inference"] and np.isfinite(value)
    assert (
        np.abs(gradient["mask"]["kernel"]).max()
        > 0
        == np.abs(gradient["embedding"]["kernel"]).max()
    )
    same = jax.tree.map(np.array_equal, new["batch_stats"], mutables["batch_stats"])
    assert all(jax.tree.leaves(same)) != moves


@pytest.mark.slow
def test_only_the_mask_layer_moves(data, tmp_path):
    config = _config(data, **MASK)
    smoke_runs.train(config, tmp_path)
    before, _ = restore.load_variables(tmp_path, "pretrain")
    after, _ = restore.load_variables(tmp_path, "finetune")
    for name in before["params"]:
        jax.tree.map(np.testing.assert_array_equal, after["params"][name], before["params"][name])
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], before["batch_stats"])


@pytest.mark.parametrize("augmentation", transfer.AUGMENTATIONS)
@pytest.mark.parametrize("how", transfer.MIXINGS)
def test_mixing_and_augmentation_give_sources_of_one_length(data, augmentation, how):
    fields = {"stages__pretrain__augmentation": augmentation, "stages__pretrain__mixing": how}
    config = _config(data, **fields)
    setting = transfer._open(config, "pretrain")
    batch = jax.tree.map(jnp.asarray, next(iter(transfer._batches(setting))))
    sources, known = jax.jit(lambda b, k: transfer._mix(setting, b, k))(batch, jax.random.key(1))
    assert sources.shape == (4, config.data.segment_samples, 2) and known.all()
    assert np.isfinite(sources).all() and np.abs(sources).max() > 0.01
    plain = batch["stems"].astype(jnp.float32)[..., 0] / 32768
    if augmentation == "none" and how == "coherent":
        # places: melody, then rest = alto + tenor + bass, filled up to three places each
        np.testing.assert_allclose(sources[..., 0], plain[:, :, :3].sum(-1), atol=1e-6)
        np.testing.assert_allclose(sources[..., 1], plain[:, :, 3:].sum(-1), atol=1e-6)


def test_an_unknown_example_does_not_void_incoherent_mixing(data):
    config = _config(data, stages__pretrain__mixing="incoherent")
    setting = transfer._open(config, "pretrain")
    batch = {k: np.array(v) for k, v in next(iter(transfer._batches(setting))).items()}
    batch["has_stems"][1, 0] = False
    mix = jax.jit(lambda b: transfer._mix(setting, b, jax.random.key(1)))
    sources, known = mix(batch)
    assert known.all()
    batch["stems"][1] = -batch["stems"][1]  # is in none of them
    np.testing.assert_array_equal(mix(batch)[0], sources)
    batch["has_stems"][:] = False
    assert not mix(batch)[1].any()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run", ("finetune",), "finetune has to follow pretrain"),
        ("run", ("tune",), "expected some of pretrain, finetune, scratch"),
        ("stages__pretrain__mixing", "mixed", "mixing is 'mixed'; expected one of coherent"),
        ("stages__pretrain__augmentation", "noise", "expected one of none, pitch, stretch"),
        ("stages__finetune__trained", "head", "trained is 'head'; expected whole or mask"),
        ("stages__finetune__trained", "mask", "has mask_inference alone"),
        ("stages__pretrain__weights__mask_inference", 1.0, "pretrain has no masks"),
        ("stages__pretrain__data", "chorales: melody=soprano, rest=horn", "sources name horn"),
        ("stages__pretrain__data", "choral: melody=soprano, rest=bass", "No prepared data set in"),
        (
            "data__sample_rate_hz",
            16_000,
            "sample_rate_hz = 8000, config.data.sample_rate_hz is 16000",
        ),
        ("data__segment_samples", 64_000, "longer --record_seconds"),
        ("frozen_trunk", "off", "expected eval or train"),
    ],
)
def test_a_wrong_config_is_refused_before_training(data, field, value, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        transfer.stages(_config(data, **{field: value}), pathlib.Path())


@pytest.mark.slow
def test_a_song_is_separated_by_the_masks_of_a_run(smoke, tmp_path):
    run = smoke.run("transfer").workdir
    song = np.random.default_rng(0).normal(0, 0.1, (30_000, 1)).astype(np.float32)
    files.write_wav(tmp_path / "song.wav", song, sample_rate_hz=8000)
    call = [str(tmp_path / "song.wav"), f"--checkpoint={run}", "--recipe=transfer"]
    assert separate.main([*call, f"--output={tmp_path / 'out'}"]) == 0
    names = {path.stem for path in (tmp_path / "out/song").glob("*.wav")}
    assert names == {"female", "male", "rest"}
    total = sum(files.read(tmp_path / f"out/song/{name}.wav")[0] for name in names)
    np.testing.assert_allclose(total, song, atol=1e-4)
    assert separate.main([*call, "--stage=pretrain", f"--output={tmp_path / 'clusters'}"]) == 0
    names = {path.stem for path in (tmp_path / "clusters/song").glob("*.wav")}
    assert names == {"cluster_1", "cluster_2", "rest"}
    rest, _ = files.read(tmp_path / "clusters/song/rest.wav")
    assert np.abs(rest).max() < 1e-3  # soft masks add up to 1
