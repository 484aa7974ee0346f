"""The prepare command: a data set to shards, killed and resumed, with bad files in it."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from places import ROOT

from majl_jax.datasets import builder, readers, records, track, whole_files
from majl_jax.datasets.grid import Grid
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import disk, loading, preparation

CHORALES = ["--dataset=chorales", "--tracks=train=2,valid=1,test=0", "--processes=2"]


def write_clip(source: pathlib.Path, name: str, *, seconds: float = 1.0) -> pathlib.Path:
    """One clip in the layout of MIR-1K."""
    for sub in ("Wavfile", "PitchLabel"):
        (source / sub).mkdir(parents=True, exist_ok=True)
    samples = int(16000 * seconds)
    audio = np.random.default_rng(len(name)).uniform(-0.3, 0.3, (samples, 2))
    path = source / "Wavfile" / f"{name}.wav"
    soundfile.write(path, audio, 16000, subtype="FLOAT")
    labels = max((samples - 640) // 320 + 1, 0)
    (source / "PitchLabel" / f"{name}.pv").write_text("57.5\n" * labels)
    return path


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    for singer in ("amy", "jmzen", "khair"):
        for song in range(3):
            write_clip(folder, f"{singer}_{song}_01")
    return folder


def run_mir1k(source, output, *arguments: str) -> int:
    """In this process but for the loading; array_record spares the import of TensorFlow."""
    flags = ["--file_format=array_record", "--processes=1", *arguments]
    return prepare.main(["--dataset=mir1k", f"--source={source}", f"--output={output}", *flags])


def digests(folder: pathlib.Path) -> dict[str, str]:
    """What lies in the folder, byte for byte."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def start(output: pathlib.Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "majl_jax.prepare", f"--output={output}", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_prepared_once_reported_and_left_alone(source, tmp_path, capsys):
    output = tmp_path / "out"
    assert run_mir1k(source, output) == 0
    text = capsys.readouterr().out
    assert "mir1k: 9 tracks, about" in text and "MB are free" in text
    assert "mir1k: 3 train, 3 valid, 3 test; 0 skipped" in text
    report = json.loads((output / "mir1k" / "report.json").read_text())
    assert report["tracks"] == {"train": 3, "valid": 3, "test": 3} and report["skipped"] == {}
    assert {path.name for path in output.iterdir()} == {"mir1k"}, "no work is left behind"
    before = digests(output)
    assert run_mir1k(source, output) == 0
    assert "already prepared" in capsys.readouterr().out
    assert digests(output) == before
    assert run_mir1k(source, output, "--record_seconds=10") == 1
    error = capsys.readouterr().err
    assert "record_seconds=12.0 then, 10.0 now" in error and "another --output" in error
    assert digests(output) == before


def test_the_same_files_in_another_folder_are_the_same_set(source, tmp_path, capsys, monkeypatch):
    assert run_mir1k(source, tmp_path / "out") == 0
    before = digests(tmp_path / "out")
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    monkeypatch.chdir(tmp_path)
    for other in (copy, "copy"):
        assert run_mir1k(other, tmp_path / "out") == 0
        assert "already prepared" in capsys.readouterr().out
    # Another sample somewhere in one file, of the same length.
    path = copy / "Wavfile/amy_1_01.wav"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert run_mir1k(copy, tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"source={source} then, {copy} now, which holds other files" in line
    path.unlink()
    assert run_mir1k(copy, tmp_path / "out") == 1
    assert "which holds other files" in capsys.readouterr().err
    assert digests(tmp_path / "out") == before
    # A set of before, when that was not recorded.
    index = json.loads((tmp_path / "out/mir1k/index.json").read_text())
    del index["options"]["content"]
    (tmp_path / "out/mir1k/index.json").write_text(json.dumps(index))
    assert run_mir1k(copy, tmp_path / "out") == 1
    assert "its files are not recorded" in capsys.readouterr().err


def test_two_folders_of_one_relative_name_are_not_the_same_set(
    source, tmp_path, monkeypatch, capsys
):
    for where, clip in (("a", "amy_0_01"), ("b", "amy_1_01")):
        shutil.copytree(source, tmp_path / where / "set")
        write_clip(tmp_path / where / "set", clip, seconds=1.5)
        monkeypatch.chdir(tmp_path / where)
        assert run_mir1k("set", tmp_path / "out") == (0 if where == "a" else 1)
    error = capsys.readouterr().err
    assert f"source={tmp_path}/a/set then, {tmp_path}/b/set now, which holds other files" in error


def test_a_source_that_is_no_folder_of_this_machine_keeps_its_name():
    parsed = prepare.parse_arguments(["--dataset=mir1k", "--source=gs://bucket/set"])
    assert prepare._options(parsed, "mir1k").source == "gs://bucket/set"


LACKING = [
    ("chorales", "midirenderer", "chorales needs midirenderer, not installed: pip install"),
    ("drums", "pretty_midi", "drums needs pretty_midi, not installed: pip install pretty_midi"),
    ("band", "mido", "band needs mido, not installed: pip install mido"),
    ("chorales", "tensorflow", "pip install tensorflow-cpu, or do without it: --file_format=array"),
]


@pytest.mark.parametrize(("name", "package", "message"), LACKING)
def test_a_package_that_is_not_there_is_named_before_the_work(
    tmp_path, monkeypatch, capsys, name, package, message
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda wanted, *more: None if wanted == package else find(wanted, *more),
    )
    assert prepare.main([f"--dataset={name}", f"--output={tmp_path / 'out'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "out").exists()


def test_tracks_limits_every_split(source, tmp_path, capsys):
    assert run_mir1k(source, tmp_path / "out", "--tracks=train=2,test=0") == 0
    assert "2 train, 3 valid, 0 test" in capsys.readouterr().out
    opened = records.open_prepared(tmp_path / "out" / "mir1k")
    assert {name: len(split) for name, split in opened.splits.items()} == {"train": 2, "valid": 3}


def test_what_is_left_out_is_counted_and_named(source, tmp_path, capsys):
    for clip in ("khair_1_01", "amy_1_01"):
        audio, rate_hz = soundfile.read(source / "Wavfile" / f"{clip}.wav")
        (source / "Wavfile" / f"{clip}.wav").unlink()
        soundfile.write(source / "Wavfile" / f"{clip}.mp3", audio, rate_hz)
    assert run_mir1k(source, tmp_path / "out") == 0
    text = capsys.readouterr().out
    assert "3 train, 3 valid, 2 test; 0 skipped" in text and "1 left out: lossy audio" in text
    report = json.loads((tmp_path / "out" / "mir1k" / "report.json").read_text())
    assert list(report["left_out"].values()) == [["khair_1_01"]]


def test_the_number_of_channels_is_the_readers_choice(capsys):
    with pytest.raises(SystemExit):
        prepare.main(["--dataset=mir1k", "--channels=2"])
    assert "--channels=2: mir1k has 1" in capsys.readouterr().err


def test_a_set_of_before_there_were_channels_is_left_alone(source, tmp_path, capsys):
    output = tmp_path / "out"
    assert run_mir1k(source, output) == 0
    index = json.loads((output / "mir1k" / "index.json").read_text())
    del index["options"]["channels"]
    (output / "mir1k" / "index.json").write_text(json.dumps(index))
    assert run_mir1k(source, output) == 0
    assert "already prepared" in capsys.readouterr().out


def test_the_voices_of_a_reader_come_into_the_set(source, tmp_path, monkeypatch, capsys):
    reader = readers.READERS["mir1k"]
    tracks = reader.tracks(str(source), grid=Grid(16000, 320))
    loaded = {one.id: functools.partial(with_voices, one, 3) for one in tracks}
    tracks = [dataclasses.replace(one, load=loaded[one.id]) for one in tracks]
    made_up = dataclasses.replace(reader, tracks=lambda *_, **__: tracks, voices=3)
    monkeypatch.setitem(readers.READERS, "mir1k", made_up)
    assert run_mir1k(source, tmp_path / "out") == 0, capsys.readouterr().err
    opened = records.open_prepared(tmp_path / "out" / "mir1k")
    assert opened.layout.voices == opened.layout.pitch_voices == 3
    one = next(records.read_tracks(tmp_path / "out" / "mir1k", "train"))
    assert one["f0_hz"].shape[1] == 3 and (one["f0_hz"][one["has_pitch"]] == 330).all()


def with_voices(one: track.Track, voices: int) -> track.Recording:
    """The recording with so many pitches of the mixture instead of its own."""
    given = one.load()
    shape = (len(given.f0_hz), voices)
    labels = {"f0_hz": np.full(shape, 330, np.float32), "has_pitch": np.ones(shape, bool)}
    return dataclasses.replace(given, voices=voices, **labels)


def spoil(source: pathlib.Path) -> dict[str, str]:
    """Adds one clip of each fault; returns what the report must say of it."""
    clips = {
        name: write_clip(source, f"leon_{name}_01")
        for name in ("empty", "truncated", "text", "zero", "silent", "nan", "mono", "rate", "label")
    }
    clips["empty"].write_bytes(b"")
    clips["truncated"].write_bytes(clips["truncated"].read_bytes()[:5000])
    clips["text"].write_text("this is no audio " * 100)
    soundfile.write(clips["zero"], np.zeros((0, 2)), 16000)
    soundfile.write(clips["silent"], np.zeros((16000, 2)), 16000)
    with_nan = np.full((16000, 2), 0.1)
    with_nan[7, 1] = np.nan
    soundfile.write(clips["nan"], with_nan, 16000, subtype="FLOAT")
    soundfile.write(clips["mono"], np.full(16000, 0.1), 16000)
    soundfile.write(clips["rate"], np.full((16000, 2), 0.1), 8000)
    (source / "PitchLabel" / "leon_label_01.pv").write_text("57\nnothing\n")
    gone = source / "Wavfile" / "leon_gone_01.wav"
    gone.symlink_to(source / "nowhere.wav")
    return {
        "empty": "empty",
        "truncated": "truncated",
        "text": "not audio",
        "zero": "no samples",
        "silent": "silent",
        "nan": "nan",
        "mono": "1 channels",
        "rate": "8000 Hz",
        "label": "line 2: 'nothing' is not a number",
        "gone": "no such file",
    }


def test_silent_records_are_left_out_and_counted_if_that_is_wanted(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, silent in (("song", slice(1500, 3200)), ("other", slice(2000, 2900))):
        audio = rng.uniform(-0.3, 0.3, (6000, 1))
        audio[silent] = 0.0  # of the second record, from 2000 to 4000: more than half, and less
        (tmp_path / "source").mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"source/{name}.wav", audio, 1000)
    flags = ["--dataset=audio_folder", f"--source={tmp_path / 'source'}", "--processes=1"]
    flags += ["--sample_rate_hz=1000", "--hop_samples=20", "--record_seconds=2"]
    flags += ["--file_format=array_record", f"--output={tmp_path}"]
    assert prepare.main([*flags, "--drop_silence"]) == 0
    assert "1 records left out, half or more of them is silence" in capsys.readouterr().out
    folder = tmp_path / "audio_folder"
    found = [(r["track"], r["start_sample"]) for r in records.read_records(folder, "train")]
    expected = [(f"{name}.wav", start) for name in ("other", "song") for start in (0, 2000, 4000)]
    assert found == [one for one in expected if one != ("song.wav", 2000)]
    report = json.loads((folder / records.REPORT_FILE).read_text())
    assert report["silent_records"] == {"song.wav": 1}
    assert prepare.main(flags) == 1
    assert "drop_silence=True then, False now" in capsys.readouterr().err


def test_bad_files_are_counted_and_named(source, tmp_path, capsys):
    faults = spoil(source)
    output = tmp_path / "out"
    assert run_mir1k(source, output) == 1
    captured = capsys.readouterr()
    assert "10 of 19 tracks are bad, more than --max_bad_fraction=0.1" in captured.err
    assert not (output / "mir1k").exists()
    assert run_mir1k(source, output, "--max_bad_fraction=0.6") == 0
    assert "3 train, 3 valid, 3 test; 10 skipped" in capsys.readouterr().out
    skipped = json.loads((output / "mir1k" / "report.json").read_text())["skipped"]
    assert len(skipped) == len(faults)
    for name, reason in faults.items():
        assert reason in skipped[f"leon_{name}_01"], f"{name}: {skipped[f'leon_{name}_01']}"
    stored = {one["track"] for one in records.read_tracks(output / "mir1k", "train")}
    assert stored == {"amy_0_01", "amy_1_01", "amy_2_01"}


def test_nothing_but_bad_files(tmp_path, capsys):
    source = tmp_path / "source"
    write_clip(source, "amy_1_01").write_bytes(b"")
    assert run_mir1k(source, tmp_path / "out", "--max_bad_fraction=1") == 1
    assert "No track could be used" in capsys.readouterr().err


def test_a_source_that_is_not_there(tmp_path, capsys):
    assert run_mir1k(tmp_path / "nowhere", tmp_path / "out") == 1
    assert "nowhere is no copy of MIR-1K" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=choral"], "unknown data set choral; there are chorales"),
        (["--dataset=chorales", "--tracks=many"], "expected a number, or train=N"),
        (["--dataset=chorales", "--tracks=exam=3"], "expected a number, or train=N"),
        (["--dataset=chorales", "--output=cloud://sets"], "such as gs://bucket/folder"),
        (["--dataset=chorales", "--report=a.json"], "--report is for --check"),
        (["--check", "--beam"], "--check looks at data sets here, without --beam"),
        (["--dataset=chorales", "--sample_rate_hz=0"], "'0': expected a whole number from 1 on"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        prepare.main(arguments)
    assert message in capsys.readouterr().err


def test_a_full_disk_ends_with_a_message_and_can_be_repeated(source, tmp_path, monkeypatch, capsys):
    class Full:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Full)
    assert run_mir1k(source, tmp_path / "out") == 1
    assert "too full" in capsys.readouterr().err
    monkeypatch.undo()

    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(builder, "write_dataset", no_space)
    assert run_mir1k(source, tmp_path / "out") == 1
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert run_mir1k(source, tmp_path / "out") == 0


def about_mb(source) -> float:
    tracks = readers.READERS["mir1k"].tracks(str(source), grid=Grid(16000, 320))
    return disk.size_mb(tracks, records.Layout(("voice", "rest"), 1, 16000, 320, 192000))


def free_bytes(monkeypatch, free: float) -> None:
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def interrupt_writing(monkeypatch, *, after: int) -> None:
    """Lets the builder take so many records before the disk is full."""

    def write(directory, splits, **_):
        for _ in zip(range(after), splits["train"], strict=False):
            pass
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(builder, "write_dataset", write)


def test_on_a_small_disk_loaded_tracks_go_as_they_are_written(
    source, tmp_path, monkeypatch, capsys
):
    assert run_mir1k(source, tmp_path / "whole") == 0
    need_mb = about_mb(source)
    said = f"mir1k: 9 tracks, about {need_mb:.0f} MB, {2 * need_mb:.0f} MB while at work"
    assert said in capsys.readouterr().out
    free_bytes(monkeypatch, 0.9e6 * need_mb)
    assert run_mir1k(source, tmp_path / "out") == 1
    assert "too full" in capsys.readouterr().err and not (tmp_path / "out").exists()
    free_bytes(monkeypatch, 1.5e6 * need_mb)
    with monkeypatch.context() as interrupted:
        interrupt_writing(interrupted, after=3)
        assert run_mir1k(source, tmp_path / "out") == 1
    assert "a loaded track is deleted once it is written" in capsys.readouterr().out
    kept = [path.name for path in tmp_path.glob("out/.mir1k.work-*/*.npz")]
    assert len(kept) == 7, "two were written and the third was about to be"
    assert run_mir1k(source, tmp_path / "out") == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_what_an_earlier_run_holds_counts_as_free(source, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as interrupted:
        interrupt_writing(interrupted, after=1)
        assert run_mir1k(source, tmp_path / "out") == 1
    need = 1e6 * about_mb(source)
    held = sum(path.stat().st_size for path in tmp_path.glob("out/.mir1k.work-*/*"))
    assert held > 1e5
    free_bytes(monkeypatch, 2 * need - held)
    assert run_mir1k(source, tmp_path / "out") == 0
    assert "deleted" not in capsys.readouterr().out


def interrupted_after_loading(source, output, monkeypatch) -> dict[str, int]:
    """When each track was loaded, by its file."""
    with monkeypatch.context() as interrupted:
        interrupt_writing(interrupted, after=1)
        assert run_mir1k(source, output) == 1
    return {path.stem: path.stat().st_mtime_ns for path in output.glob(".mir1k.work-*/*.npz")}


def test_a_file_that_has_changed_is_read_again(source, tmp_path, monkeypatch):
    first = interrupted_after_loading(source, tmp_path / "out", monkeypatch)
    shutil.copyfile(source / "Wavfile/khair_0_01.wav", source / "Wavfile/amy_0_01.wav")
    (source / "PitchLabel/amy_1_01.pv").write_text("60.5\n" * 49)
    second = interrupted_after_loading(source, tmp_path / "out", monkeypatch)
    assert first.keys() == second.keys() and len(first) == 9
    assert {name for name in first if first[name] != second[name]} == {"amy_0_01", "amy_1_01"}
    assert run_mir1k(source, tmp_path / "out") == 0
    assert run_mir1k(source, tmp_path / "anew") == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "anew")


def test_a_track_that_an_older_version_loaded_is_read_again(source, tmp_path, monkeypatch):
    interrupted_after_loading(source, tmp_path / "out", monkeypatch)
    for path in tmp_path.glob("out/.mir1k.work-*/*.npz"):
        with np.load(path) as arrays:
            kept = {key: arrays[key] for key in arrays.files if key != whole_files.CONTENT}
        kept["stems"] = kept["stems"] // 2
        np.savez(path, **kept)
    assert run_mir1k(source, tmp_path / "out") == 0
    assert run_mir1k(source, tmp_path / "anew") == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "anew")


def test_a_split_of_silence_is_left_out(source, tmp_path, capsys):
    for clip in range(3):  # the samples of one of the two stems are no silence
        audio = np.zeros((16000, 2))
        audio[:10] = 0.3
        soundfile.write(source / "Wavfile" / f"khair_{clip}_01.wav", audio, 16000)
    assert run_mir1k(source, tmp_path / "out", "--drop_silence") == 0
    assert "3 records left out" in capsys.readouterr().out
    assert set(records.open_prepared(tmp_path / "out/mir1k").splits) == {"train", "valid"}
    assert not list(tmp_path.glob("out/mir1k/*test*"))
    described = json.loads((tmp_path / "out/mir1k/dataset_info.json").read_text())
    assert {split["name"] for split in described["splits"]} == {"train", "valid"}


def test_the_work_can_lie_elsewhere(source, tmp_path):
    work = tmp_path / "work"
    assert run_mir1k(source, tmp_path / "out", f"--work={work}", "--max_bad_fraction=0") == 0
    assert not list(work.iterdir())
    write_clip(source, "leon_1_01").write_bytes(b"")
    assert run_mir1k(source, tmp_path / "other", f"--work={work}", "--max_bad_fraction=0") == 1
    assert list(work.glob(".mir1k.work-*/report.json"))
    assert not (tmp_path / "other/mir1k").exists()


def wait_for(pattern: str, folder: pathlib.Path, process: subprocess.Popen, count: int = 1) -> None:
    """Until so many paths fit the pattern; fails when the process ends before."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path):
    whole = start(tmp_path / "whole", *CHORALES)
    text = whole.communicate(timeout=120)[0]
    assert whole.returncode == 0, text
    output = tmp_path / "killed"
    for pattern, count in ((".*.work-*/*.npz", 1), (".*.work-*/*.npz", 3), (".*.partial/**/*", 2)):
        process = start(output, *CHORALES)
        wait_for(pattern, output, process, count)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)  # ends only when the workers are gone as well
        assert not (output / "chorales").exists(), "nothing half-written under the final name"
    last = start(output, *CHORALES)
    text = last.communicate(timeout=120)[0]
    assert last.returncode == 0, text
    assert digests(output) == digests(tmp_path / "whole")
    opened = records.open_prepared(output / "chorales")
    assert opened.layout.stems == ("soprano", "alto", "tenor", "bass")


def test_two_at_once_are_refused(tmp_path):
    with (
        loading.Lock(tmp_path / "lock", tmp_path),
        pytest.raises(BlockingIOError, match="Another `prepare` is at work"),
        loading.Lock(tmp_path / "lock", tmp_path),
    ):
        pass


# The second begins where the first is about to call a function: in the lock both would write into
# one draft; before it the first has to look at what is there.
@pytest.mark.parametrize(
    ("module", "name", "codes", "said"),
    [
        (loading, "load_all", (0, 1), "Another `prepare` is at work in"),
        (preparation, "_plan", (1, 0), "record_seconds=10.0 then, 12.0 now"),
    ],
)
def test_two_at_once_with_other_options_do_not_mix(
    source, tmp_path, monkeypatch, capsys, module, name, codes, said
):
    function, first, second = getattr(module, name), *codes

    def meanwhile(*arguments, **flags):
        monkeypatch.setattr(module, name, function)
        assert run_mir1k(source, tmp_path / "out", "--record_seconds=10") == second
        return function(*arguments, **flags)

    monkeypatch.setattr(module, name, meanwhile)
    assert run_mir1k(source, tmp_path / "out") == first
    assert said in capsys.readouterr().err
    assert (tmp_path / "out/mir1k").is_dir()


def test_a_folder_of_its_name_is_refused_before_the_work_if_anything_is_in_it(
    source, tmp_path, monkeypatch, capsys
):
    (tmp_path / "out/mir1k/mine").mkdir(parents=True)
    with monkeypatch.context() as unloaded:
        unloaded.setattr(loading, "load_all", None)
        assert run_mir1k(source, tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'out/mir1k'} is a folder already; remove it" in line
    (tmp_path / "out/mir1k/mine").rmdir()
    assert run_mir1k(source, tmp_path / "out") == 0
    assert records.is_prepared(tmp_path / "out/mir1k")


@pytest.mark.slow
def test_chosen_stems_are_kept_or_summed_and_the_others_are_gone(tmp_path, capsys):
    call = ["--dataset=chorales", "--tracks=train=1,valid=0,test=0", "--processes=1"]
    assert prepare.main([*call, f"--output={tmp_path / 'all'}"]) == 0
    chosen = ["--stems=low=tenor+bass,soprano", f"--output={tmp_path / 'some'}"]
    assert prepare.main([*call, *chosen]) == 0
    (whole,) = records.read_tracks(tmp_path / "all/chorales", "train")
    (found,) = records.read_tracks(tmp_path / "some/chorales", "train")
    assert records.open_prepared(tmp_path / "some/chorales").layout.stems == ("low", "soprano")
    stems = whole["stems"].astype(int)
    np.testing.assert_allclose(found["stems"][:, 0], stems[:, 2] + stems[:, 3], atol=1)
    np.testing.assert_array_equal(found["stems"][:, 1], whole["stems"][:, 0])
    np.testing.assert_array_equal(found["f0_hz"][:, 1], whole["f0_hz"][:, 0])
    np.testing.assert_array_equal(found["has_pitch"][:, 1], whole["has_pitch"][:, 0])
    assert not found["has_pitch"][:, 0].any() and not found["f0_hz"][:, 0].any()
    assert prepare.main([*call, f"--output={tmp_path / 'some'}"]) == 1
    assert "stems=low=tenor+bass,soprano then" in capsys.readouterr().err
    assert prepare.main([*call, "--stems=horn", f"--output={tmp_path / 'none'}"]) == 1
    assert "its sources name horn" in capsys.readouterr().err
