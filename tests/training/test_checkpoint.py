import contextlib
import dataclasses
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from small_disks import small_disk

from majl_jax import atomic, parallel
from majl_jax.training import checkpoint, parameters, prefetch
from majl_jax.training.restore import CheckpointError, load_variables
from majl_jax.training.step import TrainState

# Orbax leaves coroutines behind when a file turns out to be damaged.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

POSITION = (b"here", 3)


def make_state(step=0, size=4, mutables=None):
    rng = np.random.default_rng(step)
    params = {
        "body": {"w": rng.standard_normal((size, 3)).astype(np.float32)},
        "half": jnp.asarray(rng.standard_normal(size), jnp.bfloat16),
        "n": np.int32(step),
    }
    mutables = {"stats": {"mean": np.full(3, step, np.float32)}} if mutables is None else mutables
    optimizer = optax.partition(
        {
            "t": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
            "f": optax.set_to_zero(),
        },
        {"body": {"w": "t"}, "half": "t", "n": "f"},
    )
    moments = jax.tree.map(
        lambda x: rng.standard_normal(x.shape).astype(x.dtype), optimizer.init(params)
    )
    state = TrainState(np.int32(step), params, mutables, moments, jax.random.key(9))
    return parallel.replicate(state, parallel.mesh(jax.devices()[:1]))


def save(folder, state, **options):
    meta = {"stage": folder.name, "stage_index": 0, "best": None, **options.pop("meta", {})}
    with checkpoint.Checkpoints(folder, **{"keep_last": 9, **options}) as saves:
        saves.save(state, meta, POSITION)


def restore(folder, like=None):
    with checkpoint.Checkpoints(folder, keep_last=9) as saves:
        return saves.restore(make_state() if like is None else like)


def plain(state):
    """A state with the key as numbers."""
    return dataclasses.replace(state, key=jax.random.key_data(state.key))


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """A run with one stage and checkpoints of the steps 1 to 5; tests work on copies."""
    folder = tmp_path_factory.mktemp("five") / "first"
    with checkpoint.Checkpoints(folder, keep_last=9) as saves:
        for step in range(1, 6):
            about = {"stage": "first", "stage_index": 0, "best": None}
            saves.save(make_state(step), about, (b"position %d" % step, 0))
    return folder


@pytest.fixture
def copy(five, tmp_path):
    return shutil.copytree(five, tmp_path / "run" / "first")


def data_file(part):
    """The file that holds most of a part's numbers."""
    return max((p for p in part.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_a_state_comes_back_bit_for_bit(tmp_path):
    for name, mutables in {"with": None, "without": {}}.items():
        state = make_state(7, mutables=mutables)
        save(tmp_path / name, state, meta={"carried": {"rows": [{"loss": 0.1}]}})
        found, meta = restore(tmp_path / name, make_state(0, mutables=mutables))
        assert int(found.step) == 7 and meta["carried"] == {"rows": [{"loss": 0.1}]}
        tiny.assert_equal(plain(found), plain(state))
        assert found.params["half"].dtype == jnp.bfloat16
        assert prefetch.load_position(tmp_path / name, 7) == POSITION


def test_what_is_saved_in_the_background_may_be_changed_meanwhile(tmp_path, monkeypatch):
    handed, as_json = [], checkpoint.ocp.args.JsonSave
    monkeypatch.setattr(
        checkpoint.ocp.args, "JsonSave", lambda item: handed.append(item) or as_json(item)
    )
    rows = [1.0]
    save(tmp_path, make_state(1), meta={"carried": {"rows": rows}})
    rows.append(2.0)
    assert handed[0]["carried"]["rows"] == [1.0]


def test_nothing_saved_is_nothing_restored(tmp_path):
    assert restore(tmp_path / "first") is None


def test_the_last_and_the_best_are_kept(tmp_path):
    scores = {}
    with checkpoint.Checkpoints(tmp_path, keep_last=2, keep_best=2, scores=scores) as saves:
        for step, score in enumerate([0.1, 0.9, 0.3, 0.8, 0.2, np.nan, 0.15, 0.05]):
            saves.save(make_state(step), {}, POSITION)
            scores[step] = score
        saves.wait()
        assert saves.steps() == [1, 3, 6, 7]
    positions = {int(p.name) for p in (tmp_path / "input").iterdir()}
    assert {1, 3, 6, 7} <= positions and len(positions) <= 5


def test_a_score_that_is_not_finite_is_never_the_best(tmp_path):
    scores = {}
    with checkpoint.Checkpoints(tmp_path, keep_last=1, keep_best=1, scores=scores) as saves:
        for step, score in enumerate([0.4, np.nan, 0.5, np.inf, 0.3, -np.inf]):
            saves.save(make_state(step), {}, POSITION)
            scores[step] = score
        saves.wait()
        assert saves.steps() == [2, 5]


def test_damaged_checkpoints_are_named_moved_aside_and_the_one_before_is_used(copy, capsys):
    saved = copy / "checkpoints"
    file = data_file(saved / "5" / "params")
    data = bytearray(file.read_bytes())
    file.write_bytes(data[: len(data) // 2])  # truncated
    shutil.rmtree(saved / "4" / "rest")  # a part is gone
    shutil.rmtree(saved / "3")
    (saved / "3").mkdir()  # only the folder is left
    found, _ = restore(copy)
    assert int(found.step) == 2
    tiny.assert_equal(plain(found), plain(make_state(2)))
    said = capsys.readouterr().out
    for step in (5, 4, 3):
        assert f"the checkpoint of step {step} is damaged" in said
        assert (copy / f"damaged-{step}").is_dir() and not (saved / str(step)).exists()
    # training goes on over the gap, and the input position is the right one
    assert prefetch.load_position(copy, 2) == (b"position 2", 0)
    save(copy, make_state(3))
    assert int(restore(copy)[0].step) == 3


@pytest.mark.parametrize("part", ["params", "rest"])
def test_a_flipped_bit_is_never_taken_for_the_truth(tmp_path, part, capsys):
    like = make_state(0, 2000)
    for step in (1, 2):
        save(tmp_path / "good", make_state(step, 2000))
    file = data_file(tmp_path / "good" / "checkpoints" / "2" / part)
    size = file.stat().st_size
    for place in np.linspace(0, size - 1, 8).astype(int):
        folder = shutil.copytree(tmp_path / "good", tmp_path / f"flip{place}")
        flipped = folder / file.relative_to(tmp_path / "good")
        data = bytearray(flipped.read_bytes())
        data[place] ^= 4
        flipped.write_bytes(data)
        # either the flip was in a byte that carries nothing, or the checkpoint before is used
        found, _ = restore(folder, like)
        tiny.assert_equal(plain(found), plain(make_state(int(found.step), 2000)))
    # Orbax alone restores such a flip without a word
    assert "arrays differ from what was saved" in capsys.readouterr().out


def test_the_fingerprint_sees_every_bit():
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = parameters.fingerprint({"a": value, "n": np.int32(1)})
    for bit in range(value.nbytes * 8):
        changed = value.copy()
        changed.view(np.uint8).reshape(-1)[bit // 8] ^= 1 << (bit % 8)
        assert parameters.fingerprint({"a": changed, "n": np.int32(1)}) != first
    assert parameters.fingerprint({"a": value, "n": np.int32(2)}) != first


def test_nothing_is_moved_when_the_model_itself_changed(copy):
    with pytest.raises(CheckpointError, match=r"(?s)none of the.*step 5.*step 1.*workdir"):
        restore(copy, make_state(size=5))
    assert sorted(p.name for p in (copy / "checkpoints").iterdir() if p.is_dir()) == list("12345")


def test_load_variables_gives_numpy(copy):
    variables, meta = load_variables(copy.parent)
    assert meta["step"] == 5 and meta["stage"] == "first"
    expected = make_state(5)
    tiny.assert_equal(variables["params"], parallel.on_host(expected.params))
    tiny.assert_equal(variables["stats"], parallel.on_host(expected.mutables["stats"]))
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(variables))
    assert set(variables) == {"params", "stats"}


@pytest.mark.parametrize("mutables", [None, {}])
def test_a_model_applies_without_the_state_of_its_optimizer(tmp_path, mutables):
    save(tmp_path / "first", make_state(3, mutables=mutables))
    before, _ = load_variables(tmp_path)
    shutil.rmtree(tmp_path / "first/checkpoints/3/rest")
    tiny.assert_equal(load_variables(tmp_path)[0], before)
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        restore(tmp_path / "first", make_state(mutables=mutables))


def test_a_checkpoint_that_has_the_mutables_in_the_rest_is_read(tmp_path, monkeypatch):
    """As they were saved before."""
    parts = checkpoint._parts
    monkeypatch.setattr(checkpoint, "_parts", lambda state: parts(state, apart=False))
    save(tmp_path / "first", make_state(3))
    monkeypatch.undo()
    assert not (tmp_path / "first/checkpoints/3/mutables").exists()
    found, _ = restore(tmp_path / "first")
    tiny.assert_equal(plain(found), plain(make_state(3)))
    stats = load_variables(tmp_path)[0]["stats"]
    tiny.assert_equal(stats, parallel.on_host(make_state(3).mutables["stats"]))


def test_load_variables_chooses_stage_and_step(copy):
    run = copy.parent
    for step in (1, 2):
        meta = {"stage": "second", "stage_index": 1, "best": "sdr"}
        save(run / "second", make_state(step), meta=meta)
    rows = [("second", 1, 7.5), ("second", 2, 3.0), ("second", 9, 99.0), ("first", 2, 100.0)]
    lines = [f'{{"stage": "{s}", "step": {n}, "kind": "valid", "sdr": {v}}}\n' for s, n, v in rows]
    (run / "metrics.jsonl").write_text("".join(lines))
    load = load_variables
    assert load(run)[1]["step"] == 1, "the best of the last stage; step 9 has no checkpoint"
    assert load(run, which="last")[1]["step"] == 2
    assert load(run, "first")[1]["step"] == 5, "this stage names no metric: its last"
    with pytest.raises(CheckpointError, match=r"no checkpoint of stage .third.*first"):
        load(run, "third")
    with pytest.raises(ValueError, match="expected 'best' or 'last'"):
        load(run, which="newest")


def test_load_variables_refuses_what_is_not_a_run_or_is_damaged(tmp_path, copy):
    with pytest.raises(CheckpointError, match="no run directory"):
        load_variables(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_variables(tmp_path / "empty")
    file = data_file(copy / "checkpoints" / "5" / "params")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="damaged"):
        load_variables(copy.parent)
    shutil.rmtree(copy / "checkpoints" / "5" / "meta")
    with pytest.raises(CheckpointError, match="damaged"):
        load_variables(copy.parent)


def test_input_positions_are_checked(tmp_path, capsys):
    prefetch.save_position(tmp_path, 8, (b"\x00\n\xff", 2))
    prefetch.save_position(tmp_path, 9, (None, 9))
    assert prefetch.load_position(tmp_path, 8) == (b"\x00\n\xff", 2)
    assert prefetch.load_position(tmp_path, 9) == (None, 9)
    file = tmp_path / "input" / "8" / "0-of-1"
    file.write_bytes(file.read_bytes()[:-1] + b"\xfe")
    assert prefetch.load_position(tmp_path, 8) == (None, 8)
    assert "checksum is wrong" in capsys.readouterr().out
    file.rename(file.with_name("0-of-2"))  # written by a run over two processes
    assert prefetch.load_position(tmp_path, 8) == (None, 8)
    assert "reading 8 batches again" in capsys.readouterr().out


# ---- hand-over -----------------------------------------------------------------------------------

OLD = {"params": {"body": {"w": np.ones((2, 2))}, "head": {"w": np.ones(3)}}}
NEW = {
    "params": {
        "enc": {"w": np.zeros((2, 2), np.float32)},
        "mask": {"w": np.full(5, 7, np.float32)},
    }
}


def test_partial_restore_fills_by_rules():
    rules = ((r"params/enc/(.*)", r"params/body/\1"), ("params/mask/.*", None))
    filled = parameters.partial_restore(NEW, OLD, rules)
    np.testing.assert_array_equal(filled["params"]["enc"]["w"], np.ones((2, 2)))
    np.testing.assert_array_equal(filled["params"]["mask"]["w"], np.full(5, 7))
    assert filled["params"]["enc"]["w"].dtype == np.float32


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("params/enc/(.*)", r"params/body/\1"),), "no rule fills 'params/mask/w'"),
        (((".*enc/(.*)", r"params/bode/\1"), (".*", None)), "'params/bode/w', which the source"),
        (((".*mask/w", "params/head/w"), (".*", None)), r"has shape \(5,\), but .* has \(3,\)"),
        (((".*", None), ("params/gone", None)), r"match nothing: \['params/gone'\]"),
    ],
)
def test_partial_restore_refuses_what_would_stay_unfilled(rules, message):
    with pytest.raises(ValueError, match=message):
        parameters.partial_restore(NEW, OLD, rules)


# ---- a full disk ---------------------------------------------------------------------------------


@contextlib.contextmanager
def file_size_limit(size):
    """Writes beyond `size` bytes fail, as they do on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fails_and_keeps_the_last_good(folder, full):
    big = 50_000  # 600 kB of parameters, 1.8 MB with Adam's moments
    with (
        pytest.raises(CheckpointError, match=r"(?s)could not save.*Step 1 is whole"),
        checkpoint.Checkpoints(folder, keep_last=1) as saves,
    ):
        saves.save(make_state(1, big), {}, POSITION)
        saves.wait()
        with full:
            saves.save(make_state(2, big), {}, POSITION)
            saves.wait()
    found, _ = restore(folder, make_state(0, big))
    tiny.assert_equal(plain(found), plain(make_state(1, big)))
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["1"], "a half checkpoint"


def test_a_full_disk_loses_nothing(tmp_path):
    with small_disk(tmp_path / "disk") as disk:

        @contextlib.contextmanager
        def full():
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 300_000))
            yield

        fails_and_keeps_the_last_good(disk / "first", full())
        (disk / "filler").unlink()
        save(disk / "first", make_state(2, 50_000))
        assert int(restore(disk / "first", make_state(0, 50_000))[0].step) == 2


def test_a_write_that_fails_loses_nothing(tmp_path):
    fails_and_keeps_the_last_good(tmp_path / "first", file_size_limit(100_000))


def test_a_small_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "result.json"
    atomic.write_text(file, "old")
    with pytest.raises(OSError, match=r"could not write .*result.json"), file_size_limit(10):
        atomic.write_text(file, "new" * 100)
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
