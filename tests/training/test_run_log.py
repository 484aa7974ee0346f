import functools
import json
import math
import sys

import jax
import ml_collections
import numpy as np
import pytest
import tiny

from majl_jax import console, formats
from majl_jax.audio import files
from majl_jax.plotting.spectrogram import figure
from majl_jax.training import loop, run_log
from majl_jax.training.manifest import (
    ConfigMismatchError,
    add_to_manifest,
    check_manifest,
    write_manifest,
)


def rows(workdir):
    return [(row["stage"], row["step"], row["kind"]) for row in run_log.read_metrics(workdir)]


def events(folder):
    """(step, tag, value) of every scalar in a folder of event files, checksums checked."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    found = []
    for file in sorted(folder.iterdir(), key=lambda p: int(p.name.rsplit(".", 1)[-1])):
        reader = PyRecordReader_New(str(file))
        while True:
            try:
                reader.GetNext()
            except Exception:  # the end; it has no type of its own
                break
            event = Event.FromString(reader.record())
            if event.session_log.status == SessionLog.START:
                found.append((event.step, "start", 0.0))
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return found


def test_lines_and_events(tmp_path):
    with run_log.RunLog(tmp_path) as log:
        log.begin("first", 0)
        log.write("first", 10, "train", {"loss": 0.5, "odd": math.nan})
        log.write("first", 10, "valid", {"sdr": math.inf})
    first, second = (tmp_path / "metrics.jsonl").read_text().splitlines()
    row = json.loads(first)
    assert row.pop("time_s") > 1.7e9
    assert row == {"stage": "first", "step": 10, "kind": "train", "loss": 0.5, "odd": None}
    assert json.loads(second)["sdr"] == "inf", "JSON has no infinity"
    assert run_log.values(tmp_path, "first", 10, "valid")["sdr"] == math.inf
    assert math.isnan(run_log.values(tmp_path, "first", 10, "train")["odd"])
    assert run_log.values(tmp_path, "first", 11, "train") == {}
    seen = events(tmp_path / "tensorboard" / "first")
    assert seen[:2] == [(1, "start", 0.0), (10, "train/loss", 0.5)]
    assert math.isnan(seen[2][2]) and seen[3] == (10, "valid/sdr", math.inf)


def test_a_resumed_stage_drops_what_came_after_its_checkpoint(tmp_path):
    with run_log.RunLog(tmp_path) as log:
        log.begin("first", 0)
        log.write("first", 30, "train", {"loss": 1.0})
        log.write("first", 30, "test", {"loss": 1.0})
        log.begin("second", 0)
        for step in (10, 20, 30):
            log.write("second", step, "train", {"loss": float(step)})
            log.write("second", step, "valid", {"sdr": float(-step), "si_sdr": -math.inf})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "second", "step": 40, "ki')  # killed while writing
    with run_log.RunLog(tmp_path) as log:
        log.begin("second", 20)
        log.write("second", 30, "train", {"loss": 33.0})
    assert rows(tmp_path) == [
        ("first", 30, "train"),
        ("first", 30, "test"),
        ("second", 10, "train"),
        ("second", 10, "valid"),
        ("second", 20, "train"),
        ("second", 20, "valid"),
        ("second", 30, "train"),
    ]
    assert run_log.values(tmp_path, "second", 30, "train") == {"loss": 33.0}
    assert run_log.scores(tmp_path, "second", "sdr") == {10: -10.0, 20: -20.0}
    assert run_log.scores(tmp_path, "second", "si_sdr") == {10: -math.inf, 20: -math.inf}
    # TensorBoard is told to drop the steps from 21 on
    assert (21, "start", 0.0) in events(tmp_path / "tensorboard" / "second")


def test_one_process_per_run_directory(tmp_path):
    with run_log.RunLog(tmp_path), pytest.raises(RuntimeError, match="another process is training"):
        run_log.RunLog(tmp_path)
    begun, key = [], jax.random.key(0)
    with run_log.RunLog(tmp_path), pytest.raises(RuntimeError, match="another process is training"):
        loop.run([tiny.line_stage()], tmp_path, key, begin=lambda: begun.append(1))
    assert not begun
    with run_log.RunLog(tmp_path):
        pass


def test_without_tensorboard_the_lines_are_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with run_log.RunLog(tmp_path) as log:
        log.begin("first", 0)
        log.write("first", 1, "train", {"loss": 1.0})
    assert rows(tmp_path) == [("first", 1, "train")]
    assert not (tmp_path / "tensorboard").exists()


def test_the_config_examples_and_pictures_are_events(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    write_manifest(tmp_path, config(), seed=3)
    folder = tmp_path / "first/examples/a song"
    folder.mkdir(parents=True)
    files.write_wav(folder / "estimate.wav", np.full((80, 2), 0.5), sample_rate_hz=8000)
    figure(2.0, 1.0).savefig(folder / "picture.png", dpi=50)
    (folder / "pitch.csv").write_text("time,frequency,confidence")
    with run_log.RunLog(tmp_path) as log:
        log.begin("first", 0)
        log.write("first", 10, "test", {"sdr": 1.0})
        log.show_examples("first", 10)
    seen = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard/first"))
    seen.Reload()
    (sound,) = seen.Audio("a song/estimate")
    wav = (folder / "estimate.wav").read_bytes()
    assert sound.encoded_audio_string == wav and sound.sample_rate == 8000
    assert (sound.step, sound.length_frames) == (10, 80)
    (picture,) = seen.Images("a song/picture")
    assert (picture.width, picture.height, picture.step) == (100, 50, 10)
    start = seen.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    said = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info.hparams
    assert said["stage.steps"].number_value == 100 and said["rate"].number_value == 1e-3
    assert said["stage.sizes"].string_value == "[1, 2]"
    (table,) = seen.Tensors("config")
    assert b"| stage.steps | 100 |" in table.tensor_proto.string_val[0]


def test_a_tracker_is_told_every_line_and_ends_nothing(tmp_path, capsys):
    told = []

    def tracker(*line):
        told.append(line)
        if line[1] == 3:
            raise ConnectionError("no network")

    with run_log.RunLog(tmp_path, "", tracker) as log:
        log.begin("first", 0)
        for step in range(1, 6):
            log.write("first", step, "train", {"loss": 0.5})
    assert [line[1] for line in told] == [1, 2, 3]
    assert told[0] == ("first", 1, "train", {"loss": 0.5})
    assert len(rows(tmp_path)) == 5
    assert "the tracker failed and is left out from now on" in capsys.readouterr().out


# ---- config.json ---------------------------------------------------------------------------------


def config(**changes):
    nested = {"steps": 100, "sizes": (1, 2), "log_every_steps": 10}
    return ml_collections.ConfigDict({"rate": 1e-3, "stage": {**nested, **changes}})


def test_the_manifest_says_what_ran(tmp_path):
    manifest = write_manifest(tmp_path, config(), seed=3, command=["python", "-m", "x", "a b"])
    assert manifest == json.loads((tmp_path / "config.json").read_text())
    assert manifest["config"]["stage"] == {"steps": 100, "sizes": [1, 2], "log_every_steps": 10}
    assert manifest["seed"] == 3
    (start,) = manifest["starts"]
    assert start["command"] == "python -m x 'a b'"
    assert start["versions"]["jax"] == jax.__version__
    assert start["hardware"]["devices"] == jax.device_count()
    assert start["hardware"]["platform"] == "cpu"
    assert start["commit"] is None or len(start["commit"].removesuffix("-dirty")) == 40


def test_the_same_config_goes_on_and_every_start_is_kept(tmp_path):
    write_manifest(tmp_path, config(), seed=3)
    manifest = write_manifest(tmp_path, config(log_every_steps=77), seed=3)
    assert len(manifest["starts"]) == 2
    assert manifest["config"]["stage"]["log_every_steps"] == 77


def test_another_config_is_refused_by_its_keys(tmp_path):
    write_manifest(tmp_path, config(), seed=3)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ConfigMismatchError) as error:
        write_manifest(tmp_path, config(steps=200, new=1), seed=4)
    text = str(error.value)
    assert "stage.steps: 100 there, 200 here" in text
    assert "stage.new: '(absent)' there, 1 here" in text
    assert "seed: 3 there, 4 here" in text
    assert "sizes" not in text and "rate" not in text
    with pytest.raises(ConfigMismatchError) as error:
        check_manifest(tmp_path, config(steps=200, new=1), seed=4)
    assert str(error.value) == text
    check_manifest(tmp_path, config(log_every_steps=77), seed=3)
    check_manifest(tmp_path / "none", config(), seed=3)
    assert (tmp_path / "config.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(formats.FormatError, match=r"config\.json is not JSON \(.*line 1"):
        write_manifest(tmp_path, config(), seed=3)


def test_fields_that_came_later_are_free_while_they_say_what_was_done_before(tmp_path):
    old = {"stages": {"pretrain": {"steps": 5}}, "separator": "unet", "unet": {"width": 4}}
    write_manifest(tmp_path, ml_collections.ConfigDict(old), seed=3)
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "result.json").write_text("{}")
    new = ml_collections.ConfigDict(old)
    new.stages.pretrain.start = ""
    new.augmentation = {"others": 0.0, "semitones": 3.0, "match_levels": False}
    new.vqvae = {"width": 9}
    manifest = write_manifest(tmp_path, new, seed=3)
    assert manifest["config"]["vqvae"] == {"width": 9}
    assert manifest["starts"][-1]["changed"]["augmentation.semitones"] == ["(absent)", 3.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stages.pretrain.start", "runs/other"),
        ("augmentation.others", 0.5),
        ("augmentation.match_levels", True),
        ("unet.depth", 0.0),
        ("balance.method", "ratio"),
    ],
)
def test_fields_that_came_later_and_change_what_is_learned_are_refused(tmp_path, field, value):
    old = {"stages": {"pretrain": {"steps": 5}}, "augmentation": {}, "unet": {}, "balance": {}}
    write_manifest(tmp_path, ml_collections.ConfigDict(old), seed=3)
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "result.json").write_text("{}")
    new = ml_collections.ConfigDict(old)
    group, _, last = field.rpartition(".")
    functools.reduce(getattr, group.split("."), new)[last] = value
    with pytest.raises(ConfigMismatchError, match=f"{field}: '\\(absent\\)' there, "):
        write_manifest(tmp_path, new, seed=3)


def test_other_versions_are_told(tmp_path, capsys):
    manifest = write_manifest(tmp_path, config(), seed=3)
    manifest["starts"][0]["versions"]["jax"] = "0.0.1"
    (tmp_path / "config.json").write_text(json.dumps(manifest))
    write_manifest(tmp_path, config(), seed=3)
    assert "other package versions" in capsys.readouterr().out


def test_what_a_run_finds_out_is_added_and_survives_its_next_start(tmp_path):
    add_to_manifest(tmp_path, "labels", {"a": 1})
    assert not list(tmp_path.iterdir()), "no manifest to add to"
    first = write_manifest(tmp_path, config(), seed=3)
    add_to_manifest(tmp_path, "labels", {"a": {"teacher": "x", "step": 7}, "b": (1, 2)})
    add_to_manifest(tmp_path, "note", "text")
    stamp = (tmp_path / "config.json").stat().st_mtime_ns
    add_to_manifest(tmp_path, "labels", {"b": [1, 2]})
    assert (tmp_path / "config.json").stat().st_mtime_ns == stamp, "nothing new, nothing written"
    write_manifest(tmp_path, config(log_every_steps=77), seed=3)
    add_to_manifest(tmp_path, "labels", {"a": {"teacher": "y"}})
    found = json.loads((tmp_path / "config.json").read_text())
    assert found.pop("labels") == {"a": {"teacher": "y"}, "b": [1, 2]}
    assert found.pop("note") == "text"
    assert found["starts"][0] == first["starts"][0] and len(found["starts"]) == 2
    assert found.keys() == first.keys() and found["config"]["stage"]["log_every_steps"] == 77
    with pytest.raises(ConfigMismatchError):
        write_manifest(tmp_path, config(steps=200), seed=3)
    assert json.loads((tmp_path / "config.json").read_text())["note"] == "text"
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"], "no temporary file is left"


def test_only_the_first_process_adds_and_what_starts_a_run_is_not_overwritten(
    tmp_path, monkeypatch
):
    write_manifest(tmp_path, config(), seed=3)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="'seed' is written by write_manifest"):
        add_to_manifest(tmp_path, "seed", 4)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    add_to_manifest(tmp_path, "labels", {"a": 1})
    assert (tmp_path / "config.json").read_text() == before


def test_a_full_disk_leaves_the_manifest_whole(tmp_path, monkeypatch):
    write_manifest(tmp_path, config(), seed=3)
    before = (tmp_path / "config.json").read_text()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_log.os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*config\.json"):
        add_to_manifest(tmp_path, "labels", {"a": 1})
    assert (tmp_path / "config.json").read_text() == before


# ---- console -------------------------------------------------------------------------------------


def test_plain_lines_without_a_terminal(capsys, monkeypatch):
    clock = iter([100.0, 101.0, 103.0])  # made, restarted, shown
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(clock))
    with console.Progress("first", 100, 20) as progress:
        progress.restart_clock()
        for _ in range(10):
            progress.step()
        progress.show({"loss": 0.123456, "mse": 2.0})
    out = capsys.readouterr()
    assert out.out == "first 30/100  5 steps/s  0:00:14 left  loss 0.1235  mse 2\n"
    assert out.err == ""


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with console.Progress("first", 100, 20) as progress:
        progress.step()
        progress.show({"loss": 0.5})
        console.say("a line")
    out = capsys.readouterr()
    assert out.out == "a line\n"
    assert "first" in out.err and "21/100" in out.err and "loss=0.5" in out.err
