"""Basic Pitch's published weights: the right pitch at the right time, or a word on how to get
them.
"""

import importlib.util

import numpy as np
import pytest

from majl_jax.evaluation import basic_pitch

needs_weights = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("basic_pitch", "onnxruntime")),
    reason=f"needs the weights: {basic_pitch.INSTALL}",
)


def tone(midi, seconds=2.5, harmonics=7):
    """A harmonic tone with amplitudes 1 / k."""
    f0_hz = 440 * 2 ** ((midi - 69) / 12)
    time = np.arange(round(seconds * basic_pitch.SAMPLE_RATE_HZ)) / basic_pitch.SAMPLE_RATE_HZ
    parts = [np.sin(2 * np.pi * k * f0_hz * time) / k for k in range(1, harmonics + 1)]
    return (0.3 * np.sum(parts, axis=0)).astype(np.float32)


def cents_off(found_hz, midi):
    return 1200 * np.log2(found_hz / 440) - 100 * (midi - 69)


def test_frames_lie_where_their_windows_are():
    times_s = basic_pitch.frame_times_s(10_000)
    assert np.all(np.diff(times_s) > 0) and times_s[0] == 0
    assert times_s[142] == pytest.approx(36_164 / 22_050)  # first frame of the second window
    steps_s = np.diff(times_s)
    assert np.median(steps_s) == pytest.approx(256 / 22_050)
    # The authors' formula, hop * frame less 10.3 ms for each 172 frames, stays within a hop.
    frames = np.arange(10_000)
    offset_s = 256 / 22_050 * (172 - 43_844 / 256) + 0.0018
    theirs_s = frames * 256 / 22_050 - offset_s * (frames // 172)
    assert np.abs(times_s - theirs_s).max() < 256 / 22_050


def test_bins_are_a_third_of_a_semitone_the_middle_one_of_three_the_semitone():
    assert basic_pitch.BIN_HZ[145] == pytest.approx(440.0)
    assert basic_pitch.BIN_HZ[1] == pytest.approx(27.5)
    assert cents_off(basic_pitch.BIN_HZ[146], 69) == pytest.approx(100 / 3)


@pytest.mark.parametrize("missing", ["basic_pitch", "onnxruntime"])
def test_what_is_missing_is_named_with_the_command(missing, monkeypatch, tmp_path):
    import sys

    basic_pitch._session.cache_clear()
    if missing == "basic_pitch":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(basic_pitch, "weights_path", lambda: tmp_path / "nmp.onnx")
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install --no-deps basic-pitch==0\.4\.0"):
        basic_pitch.transcribe(tone(60, seconds=0.1))
    basic_pitch._session.cache_clear()


@needs_weights
def test_the_package_itself_is_not_imported():
    import sys

    assert basic_pitch.weights_path().name == "nmp.onnx"
    basic_pitch.contour(tone(60, seconds=0.1))
    assert "basic_pitch" not in sys.modules


@needs_weights
@pytest.mark.parametrize("midi", [45, 57, 69, 81])
def test_a_tone_has_its_pitch(midi):
    times_s, pitches = basic_pitch.transcribe(tone(midi))
    assert len(times_s) == len(pitches) and times_s[-1] < 2.5
    assert times_s[-1] > 2.5 - 2 * 256 / 22_050
    near = [
        np.abs(cents_off(frame, midi)).min(initial=np.inf) < 17
        for frame, time_s in zip(pitches, times_s, strict=True)
        if 0.2 < time_s < 2.3
    ]
    assert np.mean(near) > 0.95


@needs_weights
def test_chords_change_when_they_do_beyond_the_first_window():
    audio = np.concatenate([tone(57, 6.0) + tone(64, 6.0), tone(62, 2.0) + tone(69, 2.0)])
    times_s, pitches = basic_pitch.transcribe(audio)

    def share(midi, first_s, last_s):
        inside = (times_s > first_s) & (times_s < last_s)
        frames = [p for p, use in zip(pitches, inside, strict=True) if use]
        return np.mean([np.abs(cents_off(f, midi)).min(initial=np.inf) < 34 for f in frames])

    for midi in (57, 64):
        assert share(midi, 0.3, 5.9) > 0.9 and share(midi, 6.3, 7.8) < 0.3
    for midi in (62, 69):
        assert share(midi, 6.1, 7.8) > 0.9 and share(midi, 0.3, 5.9) < 0.1


@needs_weights
def test_no_audio_is_an_error():
    with pytest.raises(ValueError, match="at least one sample"):
        basic_pitch.contour(np.zeros(0, np.float32))
