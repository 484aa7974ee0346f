"""A model in one file: the same stems as its run, and what is no such file is said in one line."""

import json
import shutil

import jax
import numpy as np
import pytest
from halving import read, write
from made_runs import make_run
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import majl_jax
from majl_jax.export import __main__ as export
from majl_jax.separate import __main__ as separate
from majl_jax.separate import cards, loading, model_file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "majl")


@pytest.fixture(scope="module")
def voice(run):
    """The run in a file, and what the command said."""
    path = run.parent / "shared/voice.safetensors"
    assert export.main([str(run), f"--output={path}", "--licence=CC0-1.0"]) == 0
    return path


def test_the_file_gives_the_stems_and_the_pitch_of_the_run_bit_for_bit(run, voice, tmp_path):
    audio = write(tmp_path / "a.wav", seconds=0.7, rate_hz=22_050, channels=2, subtype="FLOAT")
    moved = shutil.copytree(run, tmp_path / "run")
    for rest in moved.glob("*/checkpoints/*/rest"):
        shutil.rmtree(rest)  # what only training needs
    of_run, of_file = (majl_jax.load(one)(audio, 22_050, batch_size=1) for one in (moved, voice))
    np.testing.assert_array_equal(of_run.stems["soprano"], of_file.stems["soprano"])
    np.testing.assert_array_equal(of_run.pitch, of_file.pitch)
    assert of_file.stems["soprano"].any()
    words = [str(tmp_path / "a.wav"), f"--checkpoint={voice}", f"--output={tmp_path / 'out'}"]
    assert separate.main([*words, "--batch_size=1", "--no_picture"]) == 0
    np.testing.assert_array_equal(read(tmp_path / "out/a/soprano.wav")[0], of_file.stems["soprano"])


def test_the_card_goes_along(run, voice):
    of_run, of_file = majl_jax.load(run).info, majl_jax.load(str(voice)).info
    assert str(of_run) == (
        f"majl, stage student, step 7 (last) of {run}, trained on chorales, chorales_stems, "
        "chorales_pitch (synthetic only)"
    )
    assert str(of_file) == str(of_run).replace(str(run), str(voice))
    assert of_file.licence == "CC0-1.0" and of_run.licence == "" and of_file.synthetic
    assert of_file.scores == {"sdr_db": 8.0} and of_file.commit == of_run.commit
    assert of_file.stems == ("soprano",) and of_file.pitch == "one"
    assert "arXiv 2501.03689" in of_file.cite and of_file.version == majl_jax.__version__
    assert of_file.config["data"]["directory"] == "" != of_run.config["data"]["directory"]
    assert {**of_file.config, "data": 0} == {**of_run.config, "data": 0}
    assert of_file.config["run"] == ["teacher", "student"]
    with safe_open(voice, framework="numpy") as file:
        names = list(file.keys())
    assert all(name.startswith(("params/", "batch_stats/")) for name in names)


def test_no_place_on_this_machine_goes_along(tmp_path):
    starts = {"teacher": "pitch=crepe-tiny, separator=/home/me/run", "student": "previous"}
    changed = {f"stages__{name}__start": start for name, start in starts.items()}
    run = make_run(tmp_path / "run", **changed)
    path = tmp_path / "voice.safetensors"
    assert export.main([str(run), f"--output={path}"]) == 0
    config = majl_jax.load(path).info.config
    found = {name: config["stages"][name]["start"] for name in starts}
    assert found == {"teacher": "pitch=crepe-tiny", "student": "previous"}
    assert b"/home/me" not in path.read_bytes()


def test_scores_are_those_of_the_checkpoints_that_were_loaded(tmp_path):
    stage = tmp_path / "run/student"
    for step in (3, 7):
        (stage / "checkpoints" / str(step)).mkdir(parents=True)
    said = {"config": {"recipe": "majl", "run": ["student"]}}

    def scores(steps, step, which):
        result = {"format": 1, "metrics": {"sdr_db": 8.0}, "steps": steps}
        (stage / "result.json").write_text(json.dumps(result))
        meta = {"stage": "student", "step": step, "best": None}
        return cards.of_run(stage.parent, said, meta, which=which, paper="").scores

    assert scores([7], 7, "best") == scores([7], 7, "last") == {"sdr_db": 8.0}
    assert scores([7, 3], 7, "best") == {"sdr_db": 8.0}
    assert scores([7, 3], 7, "last") == {}, "the mean's"
    assert scores([7, 5], 7, "best") == {}, "one of the mean is no more there"
    assert scores([3], 7, "last") == scores([], 7, "best") == {}


def test_what_is_not_read_to_apply_a_model_stays_behind(run):
    model, variables, _ = loading.find(run)
    more = {**variables, "params": {**variables["params"], "weight_module": {"kernel": np.ones(3)}}}
    kept = model_file.needed(model, more)
    assert jax.tree.structure(kept) == jax.tree.structure(dict(variables))
    jax.tree.map(np.testing.assert_array_equal, kept, dict(variables))


def test_a_stage_is_named_after_a_colon(run, tmp_path):
    teacher = majl_jax.load(f"{run}:teacher")
    assert teacher.info.stage == "teacher" and teacher.info.scores == {"sdr_db": 7.0}
    assert teacher.info.config["run"] == ["teacher"]
    assert list(teacher.info.data) == ["chorales"]
    assert export.main([f"{run}:teacher", f"--output={tmp_path / 't.safetensors'}"]) == 0
    found = majl_jax.load(tmp_path / "t.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found.variables, teacher.variables)
    with pytest.raises(ValueError, match="names the stage teacher, and student is asked for"):
        loading.find(f"{run}:teacher", stage="student")


def test_export_says_what_it_does_and_replaces_nothing(run, voice, tmp_path, capsys):
    path = tmp_path / "deep/model.safetensors"
    assert export.main([str(run), f"--output={path}"]) == 0
    out, told = capsys.readouterr()
    assert f"{path}: majl, stage student, step 7" in out and "MB; gives soprano, pitch" in out
    assert "no licence is stated" in told
    before = path.read_bytes()
    assert export.main([str(run), f"--output={path}"]) == 1
    assert "exists already: pass --overwrite" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert export.main([str(voice), f"--output={path}", "--overwrite"]) == 0
    assert majl_jax.load(path).info.licence == "CC0-1.0"
    assert export.main([str(run), f"--output={tmp_path / 'model.npz'}"]) == 1
    assert "is written as .safetensors" in capsys.readouterr().err
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_what_is_not_one_run_is_not_exported(run, tmp_path, capsys):
    make_run(tmp_path / "runs/two", data__target="bass")
    shutil.copytree(run, tmp_path / "runs/one")
    assert export.main([str(tmp_path / "runs"), f"--output={tmp_path / 'm.safetensors'}"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "is not one run" in said
    assert majl_jax.load(tmp_path / "runs").info.scores == {
        "soprano/sdr_db": 8.0,
        "bass/sdr_db": 8.0,
    }


# ---- files that are none of ours -----------------------------------------------------------------


def changed(voice, path, change, **card):
    """A copy of the file, its tensors changed by a function and its card by fields."""
    tensors = load_file(voice)
    with safe_open(voice, framework="numpy") as file:
        said = json.loads(file.metadata()["majl_jax"])
    change(tensors)
    save_file(tensors, path, metadata={"majl_jax": json.dumps({**said, **card})})
    return path


def first_kernel(tensors):
    return next(name for name in tensors if name.endswith("/kernel"))


def shorten(tensors):
    name = first_kernel(tensors)
    tensors[name] = np.ascontiguousarray(tensors[name][..., :-1])


def half(tensors):
    tensors[first_kernel(tensors)] = tensors[first_kernel(tensors)].astype(np.float16)


def lose(tensors):
    del tensors[first_kernel(tensors)]


def leave(tensors):
    tensors["../../evil"] = np.zeros(1, np.float32)


def nest(tensors):
    tensors[f"{first_kernel(tensors)}/more"] = np.zeros(1, np.float32)


def spoil(tensors):
    tensors[first_kernel(tensors)].reshape(-1)[0] = np.nan


@pytest.mark.parametrize(
    ("change", "card", "message"),
    [
        (shorten, {}, "do not fit the network of its config .*expected to generate shape"),
        (lose, {}, 'do not fit the network of its config .*parameter.* "kernel"'),
        (half, {}, "is F16; expected one of F32"),
        (leave, {}, "'../../evil' is no name of a tensor"),
        (nest, {}, "inside of another tensor"),
        (spoil, {}, "not finite"),
        (dict, {"recipe": "../evil"}, "names the recipe '../evil'"),
        (dict, {"format": 99}, "has the format 99, this version"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(voice, tmp_path, change, card, message):
    path = changed(voice, tmp_path / "bad.safetensors", change, **card)
    with pytest.raises(ValueError, match=message) as raised:
        majl_jax.load(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_damaged_and_foreign_files_are_refused(voice, tmp_path):
    path = tmp_path / "bad.safetensors"
    with pytest.raises(FileNotFoundError, match="no such model file"):
        majl_jax.load(path)
    path.write_bytes(voice.read_bytes()[:-9])
    with pytest.raises(model_file.ModelFileError, match=r"is damaged or no \.safetensors file"):
        majl_jax.load(path)
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(model_file.ModelFileError, match="tensors without a card"):
        majl_jax.load(path)
    for card, fault in (("{", "not JSON"), ('{"format": 1}', "without about, recipe, config")):
        save_file({"a": np.zeros(3, np.float32)}, path, metadata={"majl_jax": card})
        with pytest.raises(model_file.ModelFileError, match=fault):
            majl_jax.load(path)


def test_flags_that_choose_from_a_run_are_refused_with_a_file(voice, tmp_path, capsys):
    write(tmp_path / "a.wav")
    words = [str(tmp_path / "a.wav"), f"--checkpoint={voice}", f"--output={tmp_path / 'out'}"]
    assert separate.main([*words, "--stage=teacher"]) == 1
    assert "is one model: --stage and --which choose" in capsys.readouterr().err
    assert separate.main([*words, "--recipe=ss_mpe"]) == 1
    assert "is of the recipe majl, not ss_mpe" in capsys.readouterr().err
