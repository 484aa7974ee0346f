"""Any separator, any pitch estimator, any start in MAJL's cascade: what is legal runs, what is not
is refused in a line with its reason.
"""

import dataclasses
import itertools
import re

import jax
import numpy as np
import pytest
import smoke_runs
from made_runs import make_run, save_stage

import majl_jax
from majl_jax import weights
from majl_jax.export import __main__ as export
from majl_jax.models import by_name
from majl_jax.recipes import jukebox, majl, mixit, transfer, warm_start
from majl_jax.training.manifest import write_manifest
from majl_jax.training.restore import load_step
from majl_jax.weights.filling import flat

PAIRS = [*itertools.product(by_name.SEPARATORS, by_name.PITCH_ESTIMATORS)]
FIELD = "config.stages.teacher.start"
OUTPUTS = 3  # of MixIT's network
LEARNT = 0.25  # every value of a source; fresh ones are 0

# ---- sources: pairs of networks, and what the first stages of the other papers learn -------------


def config_of(separator, pitch, config=None):
    config = config or smoke_runs.load_config("majl")
    config.separator, config.pitch, config.run = separator, pitch, ("teacher",)
    config.locoformer.outputs = OUTPUTS
    return config


def of_transfer(own):
    config = smoke_runs.load_config("transfer")
    config.window_samples = own.chimera.window_samples
    config.network.update(units=own.chimera.units, layers=own.chimera.layers)
    bins = config.window_samples // 2 + 1
    return shapes_of(transfer.build(config, "pretrain"), np.zeros((1, 2, bins)))


def of_mixit(own):
    config = smoke_runs.load_config("mixit")
    config.network.update({k: v for k, v in own.locoformer.items() if k != "window_samples"})
    spectrum = np.zeros((1, 1, 2, sum(config.network.bands)), np.complex64)
    return shapes_of(mixit.build(config, "pretrain"), spectrum)


def of_jukebox(own):
    config = smoke_runs.load_config("jukebox")
    config.network.update({k: own.vqvae[k] for k in ("width", "depth", "latent")})
    config.network.halvings = own.vqvae.downs
    sizes, encoder, decoder = jukebox.build(config)
    inputs = {"encoder": (encoder, (1, 8, 1)), "decoder": (decoder, (1, 1, sizes.latent))}
    parts = {k: shapes_of(net, np.zeros(shape))["params"] for k, (net, shape) in inputs.items()}
    return {"params": parts}


# By the separator that goes on with it: the stage, its variables, and what of the separator is new.
FIRST_STAGES = {
    "chimera": ("transfer:pretrain", of_transfer, {"params/mask/bias", "params/mask/kernel"}),
    "locoformer": ("mixit:pretrain", of_mixit, {"params/shares"}),
    "vqvae": ("jukebox:music", of_jukebox, set()),
}


def shapes_of(network, inputs):
    return jax.eval_shape(network.init, jax.random.key(0), inputs)


def filled(shapes, value):
    return jax.tree.map(lambda leaf: np.full(leaf.shape, value, leaf.dtype), shapes)


@pytest.fixture(scope="module")
def fresh():
    """Variables of every pair of networks, of which each is traced once."""
    some = [*((one, "crepe") for one in by_name.SEPARATORS), ("unet", "harmof0")]
    of_part = {}
    for pair in some:
        made = jax.eval_shape(majl.build(config_of(*pair)).init, jax.random.key(0))
        for part, name in zip(("separator", "pitch"), pair, strict=True):
            of_part[name] = {c: {part: one[part]} for c, one in made.items() if part in one}
    collections = ("params", "batch_stats")
    return {
        pair: {
            c: filled({**of_part[pair[0]].get(c, {}), **of_part[pair[1]].get(c, {})}, 0.0)
            for c in collections
        }
        for pair in PAIRS
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fresh):
    """unet+crepe.npz and so on, transfer.npz, mixit.npz and jukebox.npz."""
    found = tmp_path_factory.mktemp("sources")
    for pair, variables in fresh.items():
        weights.save(filled(variables, LEARNT), found / f"{'+'.join(pair)}.npz")
    for stage, variables_of, _ in FIRST_STAGES.values():
        learnt = filled(variables_of(config_of("locoformer", "crepe")), LEARNT)
        weights.save(learnt, found / f"{stage.partition(':')[0]}.npz")
    return found


# ---- every combination, by its names and shapes --------------------------------------------------


def legal(separator, pitch):
    """Starts of a pair of networks, by what of them is learnt then: True, or parts and what of them
    stays new.
    """
    other = {"crepe": "harmof0", "harmof0": "crepe"}[pitch]
    another = by_name.SEPARATORS[by_name.SEPARATORS.index(separator) - 1]
    own, mixed = f"{separator}+{pitch}", f"{another}+{pitch}"
    yield "", ()
    yield f"{{}}/{own}.npz", ("separator", "pitch")
    yield f"separator={{}}/{separator}+{other}.npz", ("separator",)
    yield f"pitch={{}}/{mixed}.npz", ("pitch",)
    yield f"separator={{}}/{own}.npz, pitch={{}}/{mixed}.npz", ("separator", "pitch")
    yield "previous", ("separator", "pitch")
    if separator in FIRST_STAGES:
        recipe = FIRST_STAGES[separator][0].partition(":")[0]
        yield f"separator={{}}/{recipe}.npz", ("separator",)
        yield f"separator={{}}/{recipe}.npz, pitch={{}}/{mixed}.npz", ("separator", "pitch")


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_every_legal_start_gives_a_pair_of_networks_what_it_names(fresh, folder, pair):
    for text, parts in legal(*pair):
        start = text.replace("{}", str(folder))
        warm_start.check(start, field=FIELD, previous=True)
        previous = filled(fresh[pair], LEARNT)
        begun = flat(warm_start.started(fresh[pair], start, field=FIELD, previous=previous))
        assert {k: np.shape(v) for k, v in begun.items()} == {
            k: np.shape(v) for k, v in flat(fresh[pair]).items()
        }
        recipe = text.partition("separator={}/")[2].partition(".npz")[0]
        new = {name: n for name, (stage, _, n) in FIRST_STAGES.items() if stage.startswith(recipe)}
        still_new = new[pair[0]] if recipe and "+" not in recipe else set()
        for path, leaf in begun.items():
            collection, part, rest = path.split("/", 2)
            is_new = part == "separator" and f"{collection}/{rest}" in still_new
            learnt = part in parts and not is_new
            assert np.all(np.asarray(leaf) == (LEARNT if learnt else 0.0)), (start, path)


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_weights_of_another_network_are_refused_in_a_line(fresh, folder, pair):
    """But for resunet and light, which are one architecture: what they share is taken, and said."""
    separator, pitch = pair
    alike = ("resunet", "light") if separator in ("resunet", "light") else (separator,)
    separators = [one for one in by_name.SEPARATORS if one not in alike]
    firsts = [
        stage.partition(":")[0] for name, (stage, *_) in FIRST_STAGES.items() if name != separator
    ]
    others = [f"separator={folder}/{one}+{pitch}.npz" for one in separators]
    others += [f"separator={folder}/{recipe}.npz" for recipe in firsts]
    others += [
        f"pitch={folder}/{separator}+{one}.npz" for one in by_name.PITCH_ESTIMATORS if one != pitch
    ]
    assert len(others) >= 8
    for start in others:
        with pytest.raises(ValueError, match=r"has (nothing that|the shape)") as found:
            warm_start.started(fresh[pair], start, field=FIELD)
        assert re.fullmatch(rf"{FIELD}: {folder}/\S+ has .*", str(found.value))


# ---- runs ----------------------------------------------------------------------------------------

# A pair meets in a waveform alone, and a start in names and shapes, all of which the tests above
# go through. So these have every separator, every pitch estimator and every kind of source once
# (a whole run, a stage of a run, a model file, weights, the first stage of each other paper, the
# stage before), and what meets in a run: statistics (chimera has them, locoformer and vqvae not),
# a source for both networks at once, one for each, and two stages. The usual tests take one.
RUNS = [("chimera", "harmof0", "separator={transfer}:pretrain")]
RUNS += [
    pytest.param(*run, marks=pytest.mark.thorough)
    for run in (
        ("locoformer", "crepe", "separator={mixit}:pretrain, pitch={pitch}.npz"),
        ("unet", "crepe", "{majl}"),
        ("resunet", "crepe", "pitch={majl}.safetensors"),
        ("light", "crepe", "pitch={majl}:teacher"),
        ("vqvae", "crepe", "separator={jukebox}:music"),
    )
]
PLAIN = {  # what has nothing to do with which networks these are, and is long to compile
    "dwhs.objective": "none",
    "balance.method": "none",
    "weights.pitch_on_target": 0.0,
    "data.segment_samples": 20_480,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, fresh):
    """Runs of first stages and of MAJL, with random parameters."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)

    def learnt(shapes):
        return jax.tree.map(lambda x: rng.uniform(0.01, 0.05, x.shape).astype(x.dtype), shapes)

    for stage, variables_of, _ in FIRST_STAGES.values():
        recipe, _, name = stage.partition(":")
        variables = learnt(variables_of(config_of("locoformer", "crepe")))
        save_stage(folder / recipe, name, variables)
    pitch = {c: one["pitch"] for c, one in learnt(fresh["unet", "crepe"]).items()}
    weights.save(pitch, folder / "pitch.npz")
    make_run(folder / "majl")
    output = f"--output={folder / 'majl.safetensors'}"
    assert export.main([str(folder / "majl"), output, "--licence=CC0-1.0"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group("majl")
@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize(("separator", "pitch", "start"), RUNS, ids=lambda x: x.split("=")[0])
def test_it_runs_two_steps_saves_resumes_and_separates(
    smoke, runs, tmp_path, separator, pitch, start
):
    config = config_of(separator, pitch, smoke.config("majl"))
    config.update_from_flattened_dict(PLAIN)
    config.stages.teacher.start = re.sub(r"{(.*?)}", rf"{runs}/\1", start)
    config.run = ("teacher", "naive_joint") if separator == "unet" else ("teacher",)
    config.stages.naive_joint.start = "previous"
    write_manifest(tmp_path, config, seed=0)
    # What a stage scores is another test's: here it only trains.
    stages = [
        dataclasses.replace(one, evaluate=None, test=None)
        for one in smoke_runs.stages(config, tmp_path)
    ]
    broken = dataclasses.replace(stages[0], batches=smoke_runs.breaking(stages[0].batches))
    with pytest.raises(RuntimeError, match="power cut"):
        smoke_runs.train(config, tmp_path, [broken, *stages[1:]])
    smoke_runs.train(config, tmp_path, stages)
    begun, ended = (load_step(tmp_path, "teacher", step)[0]["params"] for step in (1, 2))
    for entry in config.stages.teacher.start.split(", "):
        part, _, source = entry.rpartition("=")
        learnt = warm_start.load(source)["params"]
        near(begun[part] if part else begun, learnt.get(part, learnt))
    near(ended, begun)
    assert any(np.any(one != flat(begun)[path]) for path, one in flat(ended).items())
    if len(stages) > 1:
        near(load_step(tmp_path, "naive_joint", 1)[0]["params"], ended)
    model = majl_jax.load(f"{tmp_path}:teacher")
    out = model(0.1 * np.random.default_rng(0).standard_normal(24_000), 16_000)
    assert out.stems["soprano"].shape == (24_000,) and np.isfinite(out.stems["soprano"]).all()
    assert len(out.pitch.f0_hz) == 75 and np.isfinite(out.pitch.confidence).all()


def near(params, others):
    """What they have in common lies within what a step of the optimiser can move."""
    both = set(flat(params)) & set(flat(others))
    assert any(np.ndim(flat(params)[path]) > 1 for path in both)
    for path in both:
        np.testing.assert_allclose(flat(params)[path], flat(others)[path], atol=0.01)
