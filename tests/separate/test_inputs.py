"""Folders and patterns of songs: what is found in them, and where what is made of each goes."""

import pathlib

import made_audio
import numpy as np
import pytest
import soundfile
from halving import HALF, MODEL, write

from majl_jax.audio import libav
from majl_jax.separate import __main__ as separate
from majl_jax.separate import inputs, loading

OUT = pathlib.Path("out")
TWENTY = (
    *("a.wav", "a.flac", "a.mp3", "2.wav", "10.aiff", "b.aiff", "c.ogg", "flac_in.oga", "e.opus"),
    *("rock/a.wav", "rock/a.m4a", "rock/vbr.mp3", "rock/live/x.mka", "rock/live/y.webm"),
    *("rock/live/z.mp4", "jazz/flac_in.ogg", "jazz/alac.m4a", "jazz/32_bits.flac"),
    *("jazz/mp3_in.wav", "jazz/w.aac"),
)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Makes files, of which the command looks at the names, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return make


def folders(*arguments, output=OUT):
    found, faults = inputs.songs(arguments, output)
    assert not faults
    return {song.path: song.folder.relative_to(output).as_posix() for song in found}


@pytest.mark.skipif(not libav.is_installed(), reason="PyAV is not installed")
def test_a_folder_of_twenty_files_of_all_formats(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load_run", lambda run, **kind: (MODEL, HALF, "a test"))
    monkeypatch.chdir(tmp_path)
    for name in TWENTY:
        (tmp_path / "music" / name).parent.mkdir(parents=True, exist_ok=True)
        made_audio.make((tmp_path / "music" / name).parent, pathlib.Path(name).name, seconds=0.4)
    (tmp_path / "music/cover.jpg").write_text("a picture")
    words = ["music", "--checkpoint=run", "--output=out", "--no_picture", "--format=flac"]
    assert separate.main(words) == 0
    said, beside = capsys.readouterr()
    assert "[20/20]" in said and "[21/" not in said
    assert "music: no audio by their names, left out: 1 .jpg" in beside
    made = {path.parent.relative_to("out").as_posix() for path in OUT.rglob("voice.flac")}
    alone = {"2", "10", "b", "c", "flac_in", "e", "rock/vbr", "rock/live/x", "rock/live/y"}
    alone |= {"rock/live/z", "jazz/flac_in", "jazz/alac", "jazz/32_bits", "jazz/mp3_in", "jazz/w"}
    assert made == alone | {"a.wav", "a.flac", "a.mp3", "rock/a.wav", "rock/a.m4a"}
    for path in OUT.rglob("voice.flac"):
        voice, rate_hz = soundfile.read(path)
        assert len(voice) / rate_hz == pytest.approx(0.4, abs=0.15), path
        assert np.abs(voice).max() > 0.1, path
    assert separate.main([*words, "--skip_existing"]) == 0
    assert capsys.readouterr().out.count("has all of its files already") == 20


def test_the_tree_is_mirrored_in_the_order_of_the_names(there):
    there("m/10.wav", "m/2.WAV", "m/sub/x.mp3", "m/.hidden.wav", "m/._2.wav", "m/text.txt")
    assert list(folders("m").items()) == [
        ("m/sub/x.mp3", "sub/x"),
        ("m/2.WAV", "2"),
        ("m/10.wav", "10"),
    ]
    there("n/sub/x.mp3")
    assert [*folders("m/sub", "n", "m/10.wav").values()] == ["x", "sub/x", "10"]


def test_songs_of_one_name_are_kept_apart(there):
    there("m/a.wav", "m/a.mp3", "n/a.wav", "a.flac")
    # By suffix beside each other, so that a third one does not move the others.
    assert folders("m") == {"m/a.mp3": "a.mp3", "m/a.wav": "a.wav"}
    found = folders("m", "n", "a.flac")
    assert list(found.values()) == ["a.mp3", "a.wav", "a.wav-2", "a"]
    assert folders("a.flac", "m/a.wav") == {"a.flac": "a", "m/a.wav": "a-2"}


def test_what_an_earlier_call_made_inside_the_folder_is_no_song(there):
    there("m/a.wav", "m/out/a/voice.wav", "m/out.wav")
    output = pathlib.Path("m/out")
    assert [*folders("m", output=output)] == ["m/a.wav", "m/out.wav"]
    assert [*folders("m/**/*.wav", output=output)] == ["m/a.wav", "m/out.wav"]
    for argument in ("m", "m/**/*.wav", "m/*", "m/a*", "m/*/*.wav"):
        found, (fault,) = inputs.songs([argument], pathlib.Path("m"))
        assert not found and fault.endswith("among the songs; choose another --output")
    there("m/a/voice.wav")
    assert folders("m/*.wav", output=pathlib.Path("m")) == {"m/a.wav": "a", "m/out.wav": "out"}


def test_patterns(there):
    there("m/a.wav", "m/sub/b.wav", "m/sub/c.mp3", "m/notes.txt", "[x].wav")
    assert folders("m/*") == {"m/a.wav": "a", "m/sub/b.wav": "sub/b", "m/sub/c.mp3": "sub/c"}
    assert folders("m/*.wav") == {"m/a.wav": "a"}
    assert [*folders("m/**/*.mp3").items()] == [("m/sub/c.mp3", "sub/c")]
    assert folders("[x].wav") == {"[x].wav": "[x]".replace("[", "_").replace("]", "_")}


def test_an_argument_that_names_no_song_is_said_and_the_others_are_done(there, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load_run", lambda run, **kind: (MODEL, HALF, "a test"))
    there("empty/text.txt")
    write("a.wav", seconds=0.2)
    usual = ["--checkpoint=run", "--output=out", "--no_picture"]
    assert separate.main(["a.wav", "empty", "no/*.wav", *usual]) == 1
    out, told = capsys.readouterr()
    assert "[1/1] a.wav -> out/a" in out
    assert [line.partition(";")[0] for line in told.splitlines()] == [
        "error: empty: holds no audio file",
        "error: no/*.wav: matches no audio file",
    ]
    monkeypatch.setattr(loading, "load_run", None)
    assert separate.main(["empty", *usual]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_no_audio_by_its_name_is_counted(there):
    there("m/a.wav", "m/b.caf", "m/c.w64", "m/x.txt", "m/sub/y.TXT", "m/sub/z", "m/out/voice.mid")
    found, faults = inputs.songs(["m"], pathlib.Path("m/out"))
    assert [song.path for song in found] == ["m/a.wav", "m/b.caf", "m/c.w64"] and not faults
    (said,) = inputs.left_out(["m", "m/a.wav", "absent"], pathlib.Path("m/out"))
    assert said == "m: no audio by their names, left out: 1 .txt, 1 .TXT, 1 z"
    assert inputs.left_out(["m/out", "m/sub"], pathlib.Path("m/out")) == []
