"""Lists of songs: what is there is kept, what was killed is removed, one bad name ends nothing."""

import errno
import io
import os
import pathlib
import signal
import subprocess
import sys

import made_audio
import pytest
import soundfile
from halving import HALF, MODEL, RATE_HZ, make_model, read, write
from smoke_runs import load_config

from majl_jax import atomic
from majl_jax.audio import libav
from majl_jax.separate import __main__ as separate
from majl_jax.separate import loading, stems
from majl_jax.training import manifest, restore

RECIPES = ("majl", "ss_mpe", "transfer", "mixit", "jukebox")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command line with the model above as 'the run'."""
    monkeypatch.setattr(loading, "load_run", lambda run, **kind: (MODEL, HALF, "a test"))
    monkeypatch.chdir(tmp_path)
    usual = ["--checkpoint=run", "--output=out", "--no_picture"]
    return lambda *words: separate.main([*usual, *map(str, words)])


# ---- what is there -------------------------------------------------------------------------------


def test_an_input_is_never_replaced(command, tmp_path, capsys):
    (tmp_path / "voice").mkdir()
    audio = write(tmp_path / "voice/voice.wav", subtype="FLOAT")
    assert command("voice/voice.wav", "--output=.", "--overwrite") == 1
    told = capsys.readouterr().err
    assert "error: voice/voice.wav is an input and would be replaced" in told
    # Nor one that comes later in the list, or by another name.
    write(tmp_path / "song.wav")
    (tmp_path / "song").symlink_to("voice")
    assert command("song.wav", "voice/voice.wav", "--output=.", "--overwrite") == 1
    assert "2 of 2 files failed" in capsys.readouterr().err
    assert (read(tmp_path / "voice/voice.wav")[0] == audio).all()
    assert {p.name for p in (tmp_path / "voice").iterdir()} == {"voice.wav"}
    assert command("voice/voice.wav", "--overwrite") == 0


def test_a_long_list_goes_on_where_it_stopped(command, tmp_path, capsys):
    for name in "abc":
        write(tmp_path / f"{name}.wav", seconds=0.2)
    assert command("a.wav") == 0
    (tmp_path / "out/b").mkdir()
    (tmp_path / "out/b/voice.wav").write_text("of something else")
    stamp = (tmp_path / "out/a/voice.wav").stat().st_mtime_ns
    songs = ["a.wav", "b.wav", "c.wav"]
    assert command(*songs, "--skip_existing") == 1
    out, told = capsys.readouterr()
    assert "[1/3] a.wav: out/a has all of its files already" in out and "-> out/c:" in out
    assert "voice.wav exists already" in told and "1 of 3 files failed: b.wav" in told
    assert command(*songs, "--skip_existing", "--overwrite") == 0
    assert capsys.readouterr().out.count("has all of its files already") == 2
    assert read(tmp_path / "out/b/voice.wav")[0].any()
    assert (tmp_path / "out/a/voice.wav").stat().st_mtime_ns == stamp


def test_a_song_that_has_some_of_its_files_is_done_again(command, tmp_path, capsys):
    write(tmp_path / "a.wav", seconds=0.2)
    for lost in ("voice.wav", "pitch.csv"):
        assert command("a.wav", "--overwrite") == 0
        (tmp_path / "out/a" / lost).unlink()
        assert command("a.wav", "--skip_existing") == 0
        assert (tmp_path / "out/a" / lost).is_file()
        assert "-> out/a:" in capsys.readouterr().out
    (tmp_path / "out/a/voice.wav").unlink()
    write(tmp_path / "a.wav", seconds=0.7)  # another song
    assert command("a.wav", "--skip_existing") == 1
    assert "does not fit this song" in capsys.readouterr().err
    assert not (tmp_path / "out/a/voice.wav").exists()


@pytest.mark.parametrize("words", [[], ["--format=int16"], ["--pitch_only"]])
def test_a_song_is_not_left_out_for_another_of_its_name(command, tmp_path, capsys, words):
    for name, seconds in (("a", 1.0), ("b", 0.6 if "--pitch_only" in words else 1.0)):
        (tmp_path / name).mkdir()
        audio = 3 * write(tmp_path / name / "01.wav", seconds=seconds, channels=2)
        soundfile.write(tmp_path / name / "01.wav", audio[:, :: 1 if name == "a" else -1], RATE_HZ)
    assert command("b/01.wav", *words) == 0
    stamp = (tmp_path / "out/01/pitch.csv").stat().st_mtime_ns
    assert command("b/01.wav", "--skip_existing", *words) == 0
    assert "out/01 has all of its files already" in capsys.readouterr().out
    assert command("a/01.wav", "b/01.wav", "--skip_existing", *words) == 1
    out, told = capsys.readouterr()
    assert "error: a/01.wav: out/01/" in told and "exists already and does not fit this" in told
    assert "1 of 2 files failed: a/01.wav" in told and "b/01.wav -> out/01-2:" in out
    assert (tmp_path / "out/01/pitch.csv").stat().st_mtime_ns == stamp
    assert command("a/01.wav", "b/01.wav", "--skip_existing", "--overwrite", *words) == 0
    out = capsys.readouterr().out
    assert "a/01.wav -> out/01:" in out and "out/01-2 has all of its files already" in out


@pytest.mark.parametrize("name", ["a.flac", "a.mka", "a.mp3"])
def test_a_song_that_ends_elsewhere_than_its_header_says_is_known_again(command, tmp_path, name):
    if name == "a.mka" and not libav.is_installed():
        pytest.skip("PyAV is not installed")
    path = made_audio.make(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-4000])
    words = [path.name, "--allow_truncated", "--pitch_only"]
    assert command(*words) == 0
    assert command(*words, "--skip_existing") == 0


# ---- what is left --------------------------------------------------------------------------------


def test_sigterm_leaves_nothing_half_written(command, tmp_path, monkeypatch):
    seen = []

    def terminate(self, block):
        seen.extend(p.name for p in (tmp_path / "out/a").iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(stems._Outputs, "add_stems", terminate)
    write(tmp_path / "a.wav")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        command("a.wav")
    assert ended.value.code == 128 + signal.SIGTERM
    assert len([name for name in seen if name.endswith(".part")]) == 3
    assert not (tmp_path / "out/a").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_killed_call_left_is_removed_by_the_next(command, tmp_path):
    killed = subprocess.Popen(["true"])
    killed.wait()
    for name in ("a", "other"):
        (tmp_path / "out" / name).mkdir(parents=True)
        left = f".voice.wav.{atomic._host()}.{killed.pid}.part"
        (tmp_path / "out" / name / left).write_text("half")
    (tmp_path / "out/other/voice.wav").write_text("whole")
    write(tmp_path / "b.wav", seconds=0.2)
    assert command("b.wav") == 0
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    whole = {"b/voice.wav", "b/accompaniment.wav", "b/pitch.csv", "other/voice.wav"}
    assert found == whole and not (tmp_path / "out/a").exists()


def test_a_folder_that_cannot_be_looked_into_ends_nothing(command, tmp_path, monkeypatch):
    real = atomic.remove_leftovers

    def look(folder, *name):
        if folder.name == "other":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return real(folder, *name)

    monkeypatch.setattr(atomic, "remove_leftovers", look)
    (tmp_path / "out/other").mkdir(parents=True)
    write(tmp_path / "a.wav", seconds=0.2)
    assert command("a.wav") == 0
    assert (tmp_path / "out/other").is_dir()


def fail_once(monkeypatch, where, name, path):
    """The first call of a method on a file of this name ends as on a full disk."""
    real, faults = getattr(where, name), [OSError(errno.ENOSPC, "No space left on device")]

    def call(self, *given):
        of_file = str(getattr(self, "name", self)).rpartition("/")[2]
        if faults and of_file.startswith(f".{path}."):
            raise faults.pop()
        return real(self, *given)

    monkeypatch.setattr(where, name, call)


@pytest.mark.parametrize(
    ("where", "name", "path"),
    [
        (soundfile.SoundFile, "close", "voice.wav"),
        (pathlib.Path, "replace", "pitch.csv"),
    ],
)
def test_of_a_song_all_files_are_put_in_place_or_none(
    command, tmp_path, monkeypatch, capsys, where, name, path
):
    write(tmp_path / "a.wav", seconds=0.2)
    fail_once(monkeypatch, where, name, path)
    assert command("a.wav") == 1
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out/a").exists()
    assert command("a.wav") == 0
    assert len(list((tmp_path / "out/a").iterdir())) == 3


# ---- what is said --------------------------------------------------------------------------------


def test_a_name_that_the_console_has_no_letters_for_ends_nothing(command, tmp_path, monkeypatch):
    bad = os.fsdecode(b"M\xc3\xbcll \xff.wav")
    for name in (bad, "\u6b4c.wav"):
        write(tmp_path / "x.wav", seconds=0.2)
        (tmp_path / "x.wav").rename(tmp_path / name)
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, file in written.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(file, encoding="ascii"))
    monkeypatch.setattr(loading, "load_run", lambda run, **kind: (MODEL, HALF, "a test"))
    call = [bad, "\u6b4c.wav", "absent \u2603.wav", "--checkpoint=run", "--output=out"]
    assert separate.main(call) == 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    assert rb"[1/3] M\xfcll \udcff.wav -> out/M" in written["stdout"].getvalue()
    assert rb"[2/3] \u6b4c.wav -> out/\u6b4c" in written["stdout"].getvalue()
    assert rb"error: absent \u2603.wav: no such file" in written["stderr"].getvalue()
    assert len(written["stderr"].getvalue().splitlines()) == 2
    assert len(list((tmp_path / "out").glob("*/picture.png"))) == 2


def test_compiling_is_said_once_before_the_first_song(command, tmp_path, capsys):
    for name in "ab":
        write(tmp_path / f"{name}.wav", seconds=0.2)
    assert command("a.wav", "b.wav") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "model: a test; gives voice, pitch; at 16000 Hz, so it hears nothing above 8000 Hz",
        "compiling the model …",
    ]
    assert [line.split()[0] for line in lines[2:]] == ["[1/2]", "[2/2]"]


def test_files_that_need_pyav_are_named_once_before_the_model_is_loaded(
    command, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(libav, "is_installed", lambda: False)
    write(tmp_path / "a.wav", seconds=0.2)
    assert command("x.m4a", "a.wav", "y.mka") == 1
    out, told = capsys.readouterr()
    first, *rest = told.splitlines()
    assert first.startswith("error: 2 of 3 files are read with PyAV") and "pip install av" in first
    assert first.endswith("x.m4a, y.mka") and rest == ["2 of 3 files failed: x.m4a, y.mka"]
    assert "[2/3] a.wav -> out/a" in out
    monkeypatch.setattr(loading, "load_run", None)
    assert command("x.m4a") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_pitch_alone_of_a_model_without_pitch_is_refused(command, tmp_path, monkeypatch, capsys):
    model = make_model(bin_cents=None)
    monkeypatch.setattr(loading, "load_run", lambda run, **kind: (model, HALF, "a test"))
    write(tmp_path / "a.wav")
    assert command("a.wav", "--pitch_only") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "this model gives no pitch" in said and not (tmp_path / "out").exists()


# ---- what the model knows ------------------------------------------------------------------------


def make_run(folder, name, preset, monkeypatch, **fields):
    """The folder of a run as its config says, without anything learnt."""
    config = load_config(name, preset)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    manifest.write_manifest(folder, config, seed=0)
    stage = config.run[-1]
    monkeypatch.setattr(restore, "load_variables", lambda *which: ({}, {"stage": stage, "step": 7}))
    return folder


KNOWN = {
    "majl": (
        "trained on chorales, chorales_stems, chorales_pitch (synthetic only)",
        "gives soprano, pitch; at 16000 Hz, so it hears nothing above 8000 Hz",
    ),
    "ss_mpe": (
        "trained on chorales, quartets_unlabelled, drums (synthetic only)",
        "gives all pitches; at 22050 Hz, so it hears nothing above 11025 Hz",
    ),
    "transfer": ("(synthetic only)", "at 8000 Hz, so it hears nothing above 4000 Hz"),
    "mixit": (
        "trained on band, few/band (synthetic only)",
        "gives bass, drums, other; at 8000 Hz, so it hears nothing above 4000 Hz",
    ),
    "jukebox": ("trained on chorales, band (synthetic only)", "at 8000 Hz"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_line_says_what_the_model_knows(tmp_path, monkeypatch, name):
    run = make_run(tmp_path / "run", name, "smoke", monkeypatch)
    model, _, label = loading.load_run(run)
    for words in KNOWN[name]:
        assert words in f"{label}; {loading.gives(model)}"


def test_recordings_and_rendered_sets_are_told_apart(tmp_path, monkeypatch):
    sets = {"data__stems_only": "copy/musdb18_hq", "data__pitch_only": "songs_of_mine"}
    run = make_run(tmp_path, "majl", "smoke", monkeypatch, **sets)
    _, _, info = loading.load_run(run)
    told = "chorales (synthetic), copy/musdb18_hq (real), songs_of_mine (unknown)"
    assert str(info).endswith(f"trained on {told}")
    # The teacher has seen the labelled set alone.
    stage = {"stage": "teacher", "step": 7}
    monkeypatch.setattr(restore, "load_variables", lambda *which: ({}, stage))
    assert str(loading.load_run(run)[2]).endswith("trained on chorales (synthetic only)")


def test_a_folder_with_one_run_in_it_is_that_run(tmp_path, monkeypatch):
    run = make_run(tmp_path / "runs/one", "majl", "smoke", monkeypatch)
    (model, _, label), (alone, _, of_run) = map(loading.load_run, (tmp_path / "runs", run))
    assert model.bin_cents is not None and label == of_run and model.stems == alone.stems
    make_run(tmp_path / "runs/two", "majl", "smoke", monkeypatch, data__target="bass")
    model, _, label = loading.load_run(tmp_path / "runs")
    assert model.stems == ("soprano", "bass") and model.bin_cents is None
    assert str(label).endswith("; no pitch, which one run alone gives")
