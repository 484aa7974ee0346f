"""`separate` takes files to their real end, and says once what is the matter with one."""

import dataclasses

import made_audio
import numpy as np
import pytest
import soundfile
from halving import HALF, MODEL

from majl_jax.audio import libav
from majl_jax.separate import __main__ as separate
from majl_jax.separate import loading

needs_av = pytest.mark.skipif(not libav.is_installed(), reason="PyAV is not installed")


@pytest.fixture(params=["as it is", "with a look at the whole song first"])
def command(monkeypatch, tmp_path, request):
    def listen(variables, blocks):
        assert sum(map(len, blocks))
        return variables

    first = None if request.param == "as it is" else listen
    model = dataclasses.replace(MODEL, for_song=first)
    monkeypatch.setattr(loading, "load_run", lambda run, **kind: (model, HALF, "a test"))
    monkeypatch.chdir(tmp_path)
    usual = ["--checkpoint=run", "--output=out", "--no_picture"]
    return lambda *words: separate.main([*map(str, words), *usual])


@needs_av
@pytest.mark.parametrize(
    ("name", "copies"),
    [("vbr.mp3", 1), ("a.mp3", 2), ("a.ogg", 2), ("a.m4a", 1), ("a.mka", 1), ("flac_in.oga", 1)],
)
def test_stems_are_as_long_as_the_song_really_is(command, tmp_path, name, copies):
    path = made_audio.make(tmp_path, name)
    path.write_bytes(copies * path.read_bytes())
    assert command(path) == 0
    voice, _ = soundfile.read(tmp_path / "out" / path.stem / "voice.wav")
    assert len(voice) / made_audio.RATE_HZ == pytest.approx(3.0 * copies, abs=0.1 * copies)
    loud = np.abs(voice[-2 * made_audio.RATE_HZ : -made_audio.RATE_HZ // 2]).max()
    assert loud > 0.1, "the end is no silence"


@pytest.mark.parametrize("name", ["a.wav", "a.ogg"])
def test_a_cut_file_is_refused_with_one_line_and_used_with_one_warning(
    command, tmp_path, capfd, name
):
    path = made_audio.make(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-2000])
    assert command(path) == 1
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 2 and told[0].startswith("error: ") and "is truncated" in told[0]
    assert "1 of 1 files failed" in told[1]
    assert command(path, "--allow_truncated") == 0
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].endswith("using what is there"), told
