"""GuitarSet: a made-up copy, the pitches of its strings on the grid, and what is wrong with an
excerpt.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from made_copies.guitarset import NAME, NOTES, POINT_S, SECONDS, content, write_excerpt

from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, guitarset
from majl_jax.datasets.track import BadTrack

GRID = Grid(22050, 256)  # every second point of the grid


def load_only(root: pathlib.Path, **options) -> track.Recording:
    (one,) = guitarset.tracks(str(root), grid=dataclasses.replace(GRID, **options))
    recording = one.load()
    track.check(recording)
    return recording


def expected(rate_hz: int, hop: int) -> np.ndarray:
    """[frame, string], point by point: the grid point nearest to each, the frame nearest to the
    grid point.
    """
    grid = np.zeros((int(np.ceil(SECONDS / POINT_S)) + 1, 6))
    for string, start_s, end_s, f0_hz in NOTES:
        for time_s in np.arange(start_s, end_s, POINT_S):
            grid[np.argmin(np.abs(np.arange(len(grid)) * POINT_S - time_s)), string] = f0_hz
    frames = int(SECONDS * rate_hz) // hop
    nearest = [
        np.argmin(np.abs(np.arange(len(grid)) * POINT_S - k * hop / rate_hz)) for k in range(frames)
    ]
    return grid[nearest]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("rate_hz", "hop"), [(22050, 256), (16000, 160), (22050, 512)])
def test_strings_are_voices_on_the_grid(tmp_path, rate_hz, hop, sparse):
    write_excerpt(tmp_path, sparse=sparse)
    recording = load_only(tmp_path, sample_rate_hz=rate_hz, hop_samples=hop)
    assert recording.stems == READERS["guitarset"].stems == ("mixture",)
    assert recording.voices == READERS["guitarset"].voices == 6
    assert recording.has_pitch.all() and not recording.has_stems.any()
    np.testing.assert_allclose(recording.f0_hz, expected(rate_hz, hop), rtol=1e-6)
    at = {time_s: recording.f0_hz[round(time_s * rate_hz / hop)] for time_s in (0.0, 0.5, 0.8, 1.4)}
    assert not at[0.0].any() and not at[1.4].any()
    np.testing.assert_allclose(at[0.5], [110, 0, 0, 0, 220, 0])
    np.testing.assert_allclose(at[0.8], [123.5, 0, 0, 0, 220, 0])


def test_no_pitch_is_held_beyond_the_annotation(tmp_path):
    write_excerpt(tmp_path)
    path = tmp_path / guitarset.LABELS / f"{NAME}.jams"
    path.write_text(json.dumps({**content(), "file_metadata": {"duration": 1.1}}))
    labels = load_only(tmp_path).f0_hz
    assert labels[int(1.05 * 22050 / 256), 4] == 220
    assert not labels[int(1.15 * 22050 / 256) :].any()


def test_all_are_test_and_player_05_is_valid_as_well(tmp_path):
    for name in (NAME, "05_Jazz1-130-D_solo"):
        write_excerpt(tmp_path, name)
    (tmp_path / guitarset.AUDIO / "03_Rock1-90-C_comp_mic.wav").touch()
    (tmp_path / guitarset.LABELS / "04_Rock1-90-C_comp.jams").touch()
    found = guitarset.tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split, one.left_out) for one in found] == [
        (NAME, "test", ""),
        ("03_Rock1-90-C_comp", "test", guitarset.NO_LABELS),
        ("04_Rock1-90-C_comp", "test", guitarset.NO_AUDIO),
        ("05_Jazz1-130-D_solo_valid", "valid", ""),
        ("05_Jazz1-130-D_solo", "test", ""),
    ]
    assert [one.group for one in found] == ["00", "03", "04", "05", "05"]
    for number, reason in ((1, guitarset.NO_LABELS), (2, guitarset.NO_AUDIO)):
        with pytest.raises(BadTrack, match=reason):
            found[number].load()


def test_a_wrong_folder_is_told_what_is_expected(tmp_path):
    for source in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(
            FileNotFoundError, match=r"no copy of GuitarSet: expected annotation/NAME"
        ):
            guitarset.tracks(str(source), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing"):
        guitarset.tracks(None, grid=GRID)


def with_value(**changes) -> dict[str, Any]:
    """One point changed."""
    out = content(sparse=True)
    (string,) = [
        one for one in out["annotations"] if one["data"] and one["data"][0]["value"]["index"] == 2
    ]
    string["data"][0] = {**string["data"][0], **changes}
    return out


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("", "not JSON"),
        ('{"annotations": [', "not JSON"),
        ("[]", "TypeError"),
        (json.dumps({"annotations": []}), "KeyError 'file_metadata'"),
        (json.dumps({**content(), "annotations": content()["annotations"][:4]}), "3 pitch_contour"),
        (json.dumps({**content(), "file_metadata": {"duration": None}}), "TypeError"),
        (json.dumps({**content(), "file_metadata": {"duration": 0}}), "0 s long"),
        (
            json.dumps({**content(), "file_metadata": {"duration": 0.2}}),
            r"ends at 0\.2 s, its audio",
        ),
        (json.dumps(with_value(value=None)), "TypeError"),
        (json.dumps(with_value(value={"voiced": True})), "KeyError 'frequency'"),
        (json.dumps(with_value(value={"voiced": True, "frequency": -3.0})), "string 4 has"),
        (json.dumps(with_value(value={"voiced": True, "frequency": 1e4})), "0 to 5000 Hz"),
        (json.dumps(with_value(time=-1.0)), "string 4 has a time"),
    ],
)
def test_bad_annotations_are_named(tmp_path, made, message):
    write_excerpt(tmp_path)
    path = tmp_path / guitarset.LABELS / f"{NAME}.jams"
    path.write_text(made)
    (one,) = guitarset.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(BadTrack, match=message) as error:
        one.load()
    assert str(path) in str(error.value)


def test_bad_audio_is_named(tmp_path):
    write_excerpt(tmp_path)
    path = tmp_path / guitarset.AUDIO / f"{NAME}_mic.wav"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match=rf"{NAME}_mic\.wav"):
        load_only(tmp_path)
