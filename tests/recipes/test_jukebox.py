"""Jukebox's stages: what is handed over, what the codebook does, and what a wrong config is
told.
"""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import made_music
import numpy as np
import pytest
import smoke_runs

from majl_jax import weights
from majl_jax.audio import files
from majl_jax.datasets import builder, records
from majl_jax.inference import segments
from majl_jax.models.layers import vector_quantizer
from majl_jax.recipes import jukebox
from majl_jax.separate import __main__ as separate
from majl_jax.training import restore

pytestmark = pytest.mark.xdist_group("jukebox")  # one worker makes what they share


@pytest.fixture(scope="module")
def data(smoke):
    return smoke.data("jukebox")


@pytest.fixture(scope="module")
def run(smoke):
    """A whole run, and its config."""
    return smoke.run("jukebox")[:2]


def _config(data, preset="smoke", **fields):
    config = smoke_runs.load_config("jukebox", preset)
    config.data.directory = str(data)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return config


def _stage(data, name, **fields):
    stages = {
        stage.name: stage for stage in jukebox.stages(_config(data, **fields), pathlib.Path())
    }
    return stages[name]


def _same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_each_stage_goes_on_with_what_the_one_before_learnt(run):
    workdir, config = run
    music, _ = restore.load_variables(workdir, "music")
    vqvae, _ = restore.load_variables(workdir, "vqvae")
    _, second, third = jukebox.stages(config, workdir)
    begun = second.init(jax.random.key(1), music)
    _same(begun["params"], music["averaged"])
    _same(begun["codebook"], music["codebook"])
    begun = third.init(jax.random.key(1), vqvae)
    _same(begun["stem"], vqvae["averaged"])
    assert set(begun["params"]) == {"encoder"}
    differs = jax.tree.map(
        lambda a, b: np.any(a != b), begun["params"]["encoder"], vqvae["averaged"]["encoder"]
    )
    assert any(jax.tree.leaves(differs))  # random
    trained, _ = restore.load_variables(workdir, "encoder")
    _same(trained["stem"], vqvae["averaged"])
    _same(trained["codebook"], vqvae["codebook"])


@pytest.mark.slow
@pytest.mark.parametrize("initial", ["stem", "pretrained"])
def test_the_second_encoder_starts_where_it_is_told(data, initial):
    config = _config(data, stages__encoder__init=initial)
    music, vqvae, encoder = jukebox.stages(config, pathlib.Path())
    first = music.init(jax.random.key(0), None)
    second = vqvae.init(jax.random.key(1), first)
    moved = {**second, "averaged": jax.tree.map(lambda x: x + 1, second["averaged"])}
    third = encoder.init(jax.random.key(2), moved)
    expected = moved["averaged"] if initial == "stem" else first["averaged"]
    _same(third["params"]["encoder"], expected["encoder"])
    if initial == "pretrained":  # a vqvae that was trained for another start did not keep its own
        del moved["pretrained"]
        with pytest.raises(ValueError, match="give another --workdir"):
            encoder.init(jax.random.key(2), moved)


def test_a_random_second_encoder_is_not_what_the_first_began_as(data):
    music, _, encoder = jukebox.stages(_config(data), pathlib.Path())
    first = music.init(jax.random.key(0), None)
    second = encoder.init(jax.random.key(0), first)  # all stages of a run get the same key
    kernels = zip(*(jax.tree.leaves(x["params"]["encoder"]) for x in (first, second)), strict=True)
    assert all(np.any(a != b) for a, b in kernels if a.ndim > 1)


@pytest.mark.slow
@pytest.mark.parametrize("update", ["ema", "frozen"])
def test_the_codebook_follows_or_stays_and_averages_move(data, update):
    config = _config(data, codebook_update=update)
    music, vqvae, _ = jukebox.stages(config, pathlib.Path())
    start = music.init(jax.random.key(0), None)
    rows = jax.random.normal(jax.random.key(3), (32, 8))
    start["codebook"] = vector_quantizer.restore(rows, tokens_per_item=256)._asdict()
    variables = dict(vqvae.init(jax.random.key(1), start))
    params = variables.pop("params")
    shifted = jax.tree.map(lambda x: x + 0.1, params)
    batch = jax.tree.map(jnp.asarray, next(iter(vqvae.batches(None))))
    loss = jax.jit(
        lambda p, m, b: vqvae.loss.func(*vqvae.loss.args, p, m, b, jax.random.key(2), axis=None)
    )
    total, (new, terms) = loss(shifted, variables, batch)
    assert np.isfinite(total) and terms["perplexity"] >= 1
    moved = np.any(np.asarray(new["codebook"]["vectors"]) != rows)
    assert moved == (update == "ema")
    expected = jax.tree.map(lambda a, p: 0.99 * a + 0.01 * p, variables["averaged"], shifted)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new["averaged"], expected
    )


@pytest.mark.slow
def test_a_file_of_weights_is_where_the_first_stage_starts(data, tmp_path):
    config = _config(data)
    _, encoder, decoder = jukebox.build(config)
    made = {
        "params": {
            "encoder": encoder.init(jax.random.key(5), jnp.zeros((1, 8, 1)))["params"],
            "decoder": decoder.init(jax.random.key(6), jnp.zeros((1, 1, 8)))["params"],
        },
        "codebook": {"vectors": np.arange(256, dtype=np.float32).reshape(32, 8)},
    }
    weights.save(made, tmp_path / "vqvae.npz")
    fields = {"run": ("vqvae", "encoder"), "stages__vqvae__start": str(tmp_path / "vqvae.npz")}
    begun = _stage(data, "vqvae", **fields).init(jax.random.key(0), None)
    _same(begun["params"], made["params"])
    np.testing.assert_array_equal(begun["codebook"]["vectors"], made["codebook"]["vectors"])
    np.testing.assert_allclose(begun["codebook"]["counts"], 4 * 256 / 32)
    _stage(data, "vqvae", **fields, codebook_update="frozen")  # has something to be frozen
    with pytest.raises(
        ValueError, match=r"vqvae.npz has the shape .* for .*, the network the shape"
    ):
        _stage(data, "vqvae", **fields, network__width=12)


def test_a_file_of_a_deeper_network_is_refused(data, tmp_path):
    _, encoder, decoder = jukebox.build(_config(data, network__depth=3))
    made = {
        "params": {
            "encoder": encoder.init(jax.random.key(5), jnp.zeros((1, 8, 1)))["params"],
            "decoder": decoder.init(jax.random.key(6), jnp.zeros((1, 1, 8)))["params"],
        },
        "codebook": {"vectors": np.zeros((32, 8), np.float32)},
    }
    weights.save(made, tmp_path / "deep.npz")
    fields = {"run": ("vqvae",), "stages__vqvae__start": str(tmp_path / "deep.npz")}
    with pytest.raises(ValueError, match=r"deep.npz has the shape .*block3.*, the network nothing"):
        _stage(data, "vqvae", **fields)


def test_blends_of_stereo_are_shared_or_not():
    audio = jnp.stack([jnp.ones((3, 5)), jnp.zeros((3, 5))], axis=-1)
    keys = jax.random.split(jax.random.key(0), 3)
    shares = jukebox.mono(audio, keys)[:, 0, 0]
    assert len(np.unique(shares)) == 3 and ((shares > 0) & (shares < 1)).all()
    np.testing.assert_array_equal(jukebox.mono(audio[:, :, :1], keys), audio[:, :, :1])


@pytest.mark.slow
def test_the_second_encoder_hears_one_blend_or_two(data):
    """Of stereo: with one blend for both, a mixture that is the stem alone has the stem's
    latents.
    """
    stereo = np.random.default_rng(0).integers(-9000, 9000, (4, 2048, 3, 2)).astype(np.int16)
    stereo[:, :, 1:] = 0
    batch = {
        "stems": jnp.asarray(stereo),
        "has_stems": jnp.ones((4, 3), bool),
        "index": jnp.arange(4, dtype=jnp.uint32),
    }
    for shared in (True, False):
        config = _config(data, data__shared_blend=shared, stages__encoder__init="stem")
        setting = jukebox._open(config, "encoder")
        variables = dict(jukebox._init(setting, jax.random.key(0), None))
        params = {"encoder": variables["stem"]["encoder"]}
        variables = {k: v for k, v in variables.items() if k != "params"}
        loss, _ = jukebox._loss(setting, params, variables, batch, jax.random.key(1), axis=None)
        assert (loss == 0) == shared


@pytest.mark.slow
def test_a_step_on_two_devices_is_that_on_one(data, tmp_path):
    """Loss, parameters and the codebook, which follows the latents of both."""
    found = []
    for count in (1, 2):
        config = _config(data, run=("music",), train__evaluate_every_steps=2)
        workdir = tmp_path / str(count)
        smoke_runs.train(config, workdir, devices=count)
        found.append(restore.load_variables(workdir, "music", "last")[0])
    one, two = found
    for name in ("params", "codebook", "averaged"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one[name], two[name])


@pytest.mark.slow
def test_songs_in_segments_are_those_of_one_pass(run):
    workdir, config = run
    variables, _ = restore.load_variables(workdir)
    model = jukebox.segment_model(config)
    song = np.random.default_rng(0).normal(0, 0.1, (9_999, 1)).astype(np.float32)
    padded = np.pad(song, ((0, 1), (0, 0)))
    whole = np.asarray(jax.jit(model.apply)(variables, padded[None])["stems"][0, : len(song)])
    found = segments.apply_track(model, variables, song, batch_size=2)["stems"]
    np.testing.assert_allclose(found, whole, atol=1e-5)
    config = config.copy_and_resolve_references()
    config.evaluation.exact = False
    rough = segments.apply_track(jukebox.segment_model(config), variables, song, overlap=0.0)[
        "stems"
    ]
    assert rough.shape == whole.shape and np.abs(rough - whole).max() > 1e-5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run", ("vqvae", "music"), "in this order"),
        ("run", ("encoder",), "encoder has to follow vqvae"),
        ("codebook_update", "gradient", "expected one of ema, frozen"),
        ("stages__encoder__init", "zero", "expected one of random, pretrained, stem"),
        ("stages__encoder__loss", "l1", "expected one of mse, lmix"),
        ("stages__vqvae__start", "none.npz", "none.npz, which is no file"),
        ("data__stem", "vocals", "has the stems bass, drums, other; config.data.stem is 'vocals'"),
        ("data__segment_samples", 2052, "a multiple of 8, the samples of a latent"),
        ("data__segment_samples", 25_600, "longer --record_seconds"),
        ("data__channels", 2, "prepared with channels = 1, config.data.channels is 2"),
        ("data__music", "fma", "No prepared data set in"),
        ("evaluation__segment_samples", 64, "take more than twice as many, or"),
    ],
)
def test_a_wrong_config_is_refused_before_training(data, field, value, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        jukebox.stages(_config(data, **{field: value}), pathlib.Path())


@pytest.mark.parametrize("preset", ["paper", "released_code"])
def test_the_published_presets_are_level_0_of_jukebox(preset):
    config = _config("nowhere", preset)
    sizes, encoder, decoder = jukebox.build(config)
    shapes = [
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 8, 1))),
        jax.eval_shape(decoder.init, jax.random.key(0), jnp.zeros((1, 1, 64))),
    ]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 900_033
    assert sizes.dilations[-1] == 2187 and jukebox.hop(sizes) == 8
    model = jukebox.segment_model(config)
    assert model.context_samples == (91_880 if preset == "paper" else 0)


def test_a_frozen_codebook_has_to_come_from_somewhere(data):
    fields = {"run": ("vqvae", "encoder"), "codebook_update": "frozen"}
    with pytest.raises(ValueError, match="nothing fills the codebook"):
        jukebox.stages(_config(data, **fields), pathlib.Path())
    fields = {"run": ("vqvae", "encoder"), "stages__encoder__init": "pretrained"}
    with pytest.raises(ValueError, match="init is pretrained"):
        jukebox.stages(_config(data, **fields), pathlib.Path())


@pytest.mark.slow
def test_a_song_is_separated_by_a_run_and_by_a_folder_of_runs(run, tmp_path, capsys):
    workdir, _ = run
    song = np.random.default_rng(0).normal(0, 0.1, (30_001, 2)).astype(np.float32)
    files.write_wav(tmp_path / "song.wav", song, sample_rate_hz=8000)
    call = [str(tmp_path / "song.wav"), f"--checkpoint={workdir}", "--recipe=jukebox"]
    assert separate.main([*call, f"--output={tmp_path / 'out'}"]) == 0
    found = {p.stem: files.read(p)[0] for p in (tmp_path / "out/song").glob("*.wav")}
    assert set(found) == {"drums", "accompaniment"}
    np.testing.assert_allclose(found["drums"] + found["accompaniment"], song, atol=1e-4)
    # A folder of runs of one stem each gives all stems.
    shutil.copytree(workdir, workdir.parent / "bass")
    manifest = workdir.parent / "bass/config.json"
    changed = json.loads(manifest.read_text())
    changed["config"]["data"]["stem"] = "bass"
    manifest.write_text(json.dumps(changed))
    call[1] = f"--checkpoint={workdir.parent}"
    assert separate.main([*call, f"--output={tmp_path / 'all'}"]) == 0
    found = {p.stem: files.read(p)[0] for p in (tmp_path / "all/song").glob("*.wav")}
    assert set(found) == {"bass", "drums", "rest"}
    np.testing.assert_array_equal(found["bass"], found["drums"])
    shutil.copytree(workdir, workdir.parent / "again")
    assert separate.main([*call, f"--output={tmp_path / 'twice'}"]) == 1
    assert "runs that separate different stems" in capsys.readouterr().err


def test_a_single_song_of_unknown_stems_among_many_is_found(tmp_path):
    layout = dataclasses.replace(
        made_music.LAYOUT,
        stems=("bass", "drums", "other"),
        sample_rate_hz=8000,
        hop_samples=64,
        record_samples=100 * 64,
    )
    names = [f"song {number}" for number in range(70)]

    def write(unknown, valid_known=True):
        def track(name):
            made = made_music._with_noise("a", layout)
            first = {
                k: v[: 100 * (64 if k == "stems" else 1)]
                for k, v in made.items()
                if k in ("stems", "f0_hz", "has_pitch")
            }
            known = np.full(3, name != unknown)
            return {**made, **first, "track": name, "has_stems": known, "valid_samples": 6400}

        cut = [record for name in names for record in records.cut(track(name), layout)]
        valid = {**cut[0], "has_stems": np.full(3, valid_known)}
        folder = tmp_path / f"{unknown} {valid_known}"
        builder.write_dataset(folder, {"train": cut, "valid": [valid]}, layout=layout)
        return records.open_prepared(folder)

    known = write(None)
    jukebox._refuse_unknown_stems(known)
    with pytest.raises(ValueError, match="the stems of no song of its validation are known"):
        jukebox._refuse_unknown_stems(write(None, valid_known=False))
    # One that 64 records, evenly over the set, leave out.
    left_out = set(range(70)) - set(np.linspace(0, 69, 64).astype(int).tolist())
    missed = known.split("train").track[min(left_out)]
    with pytest.raises(ValueError, match=f"the stems of {missed} are not known"):
        jukebox._refuse_unknown_stems(write(missed))
