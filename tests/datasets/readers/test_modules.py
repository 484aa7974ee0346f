"""Tracker modules: made-up ones read as stems and parts, the list, and those that are installed."""

import collections
import pathlib

import numpy as np
import pytest
from made_modules import ROW_S, mod, noise, note_hz, song, tone

from majl_jax.audio import module_files, openmpt
from majl_jax.datasets import module_notes, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import modules
from majl_jax.datasets.splits import read_split
from majl_jax.prepare import __main__ as prepare

GRID = Grid(16_000, 320)
STEREO = Grid(44_100, 441, 2)
ROOT = pathlib.Path("/")
PLACE = "usr/share/games/tecnoballz/musics/tecnoballz.mod"

needs_libopenmpt = pytest.mark.skipif(
    not openmpt.is_installed(), reason=f"needs libopenmpt: {openmpt.INSTALL}"
)


def written(root: pathlib.Path, data: bytes, place: str = PLACE) -> str:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_bytes(data)
    return str(root)


def loaded(root: pathlib.Path, data: bytes, *, grid: Grid = GRID, view: str = "stems"):
    found = modules.tracks(written(root, data), grid=grid, view=view)
    (one,) = [one for one in found if not one.left_out]
    recording = one.load()
    track.check(recording)
    return recording


def left_db(mixture: np.ndarray, stems: np.ndarray) -> float:
    """How loud what the stems leave of the mixture is, against it."""
    left = np.sum(np.square(mixture - stems.sum(axis=1), dtype=np.float64))
    return float(10 * np.log10(left / np.sum(np.square(mixture, dtype=np.float64)) + 1e-30))


def played(data: bytes, grid: Grid) -> np.ndarray:
    file = module_files.read(data, "")
    return modules.render(data, file, range(len(file.samples)), grid=grid)


@needs_libopenmpt
@pytest.mark.parametrize("grid", [GRID, STEREO])
def test_stems_are_the_samples_of_their_names_and_sum_to_the_mixture(tmp_path, grid):
    recording = loaded(tmp_path, song(), grid=grid)
    assert recording.stems == ("bass", "drums", "other") and recording.has_stems.all()
    assert left_db(played(song(), grid), recording.audio) < -100
    file = module_files.read(song(), "")
    for stem, sample in ((0, 1), (1, 0), (2, 2)):
        alone = modules.render(song(), file, [sample], grid=grid)
        assert np.abs(alone).max() > 0.05
        np.testing.assert_array_equal(recording.audio[:, stem], alone)


@needs_libopenmpt
def test_samples_without_a_name_are_told_by_their_sound(tmp_path):
    waves = [("hello", noise(), False), ("all", tone(128), True), ("friends", tone(), True)]
    notes = [(row, 0, 0, 60) for row in range(4, 64, 8)]
    notes += [(row, 1, 1, 60 + row % 5) for row in range(0, 64, 8)]
    notes += [(row, 2, 2, 64 + row % 12) for row in range(0, 64, 4)]
    recording = loaded(tmp_path, mod(waves, notes))
    assert recording.has_stems.all()
    expected = loaded(tmp_path, song()).audio
    powers = np.mean(np.square(recording.audio), axis=(0, 2))
    assert np.all(powers > 1e-5) and note_hz(60, 128) < 110 < note_hz(60)
    np.testing.assert_array_equal(recording.audio[:, 1], expected[:, 1])


@needs_libopenmpt
def test_a_module_whose_samples_are_unsure_is_a_mixture_alone(tmp_path):
    # A snare by its name that plays melodies, as loud as the rest.
    waves = [("snare", tone(), True), ("bass", tone(128), True)]
    notes = [(row, 0, 0, 60 + row % 12) for row in range(0, 64, 4)] + [(0, 1, 1, 60)]
    data = mod(waves, notes)
    recording = loaded(tmp_path, data)
    assert not recording.has_stems.any() and not recording.audio[:, 1:].any()
    assert left_db(played(data, GRID), recording.audio[:, :1]) < -100
    parts = loaded(tmp_path, data, view="parts")
    assert parts.stems == modules.PARTS and parts.has_stems.all()
    assert left_db(played(data, GRID), parts.audio) < -100


@needs_libopenmpt
def test_parts_are_the_loudest_samples_alone_and_the_others(tmp_path):
    waves = [(f"{number}", tone(32 + 4 * number), True) for number in range(6)]
    notes = [(row, 0, 5 - row % 6, 60) for row in range(0, 60)]
    notes += [(row, 1, 5, 60) for row in range(0, 60, 2)] + [(row, 2, 4, 60) for row in (1, 31)]
    recording = loaded(tmp_path, mod(waves, notes), view="parts")
    file = module_files.read(mod(waves, notes), "")
    alone = modules.render(mod(waves, notes), file, [5], grid=GRID)
    scale = recording.audio[:, 0].std() / alone.std()
    np.testing.assert_allclose(recording.audio[:, 0], alone * scale, atol=1e-4)
    assert np.all(recording.audio[:, 3].std(axis=0) > 0.01)


def melodies() -> tuple[bytes, list[tuple[float, float]]]:
    """A module of a drum and a lead, and the lead's onsets in s and pitches in Hz."""
    waves = [("snare", noise(), False), ("lead", tone(), True)]
    notes = [(row, 0, 0, 60) for row in range(0, 64, 8)]
    lead = [(row, 1, 1, 60 + row // 4 % 12) for row in range(4, 64, 4)]
    return mod(waves, notes + lead), [(row * ROW_S, note_hz(midi)) for row, _, _, midi in lead]


@needs_libopenmpt
def test_the_pitches_of_the_mixture_are_those_of_the_notes(tmp_path):
    data, lead = melodies()
    recording = loaded(tmp_path, data, view="pitch")
    assert recording.voices == modules.MIXTURE_VOICES and recording.stems == ("mixture",)
    times_s = GRID.frame_times_s(len(recording.f0_hz))
    expected_hz = np.zeros(len(times_s))
    for onset_s, f0_hz in lead:
        expected_hz[times_s >= onset_s] = f0_hz
    known = recording.has_pitch[:, 0]
    # Not the frames around an onset, which hold two notes.
    assert known.mean() > 0.6 and not recording.has_pitch[~known].any()
    apart = 1200 * np.abs(
        np.log2(np.maximum(recording.f0_hz, 1e-9).max(axis=1) / np.maximum(expected_hz, 1e-9))
    )
    sounding = known & (recording.f0_hz.max(axis=1) > 0)
    assert np.all(apart[sounding] < 20) and sounding.mean() > 0.6
    assert np.all((recording.f0_hz > 0).sum(axis=1) <= 1)
    assert np.all(recording.f0_hz[known & (times_s < lead[0][0] - 0.1)] == 0)


@needs_libopenmpt
def test_frames_in_which_the_sound_has_another_pitch_are_no_label(tmp_path, monkeypatch):
    data, lead = melodies()
    tunings = module_notes.tunings

    def sharp(uses, sounds):
        return {sample: f0_hz * 2 ** (1 / 12) for sample, f0_hz in tunings(uses, sounds).items()}

    monkeypatch.setattr(module_notes, "tunings", sharp)
    recording = loaded(tmp_path, data, view="pitch")
    after = GRID.frame_times_s(len(recording.f0_hz)) > lead[0][0] + 0.1
    assert not recording.f0_hz.any() and not recording.has_pitch[after].any()


@needs_libopenmpt
def test_what_is_not_there_is_left_out_with_the_command_that_brings_it(tmp_path):
    found = modules.tracks(written(tmp_path, song()), grid=GRID)
    assert len(found) == len(modules.listed())
    reasons = {one.id: one.left_out for one in found}
    assert reasons["tecnoballz-data/tecnoballz.mod"] == ""
    assert reasons["rafkill-data/song5.xm"] == "its text forbids copies"
    lacking = reasons["bb/bb.s3m"]
    assert lacking.startswith("not there: `apt-get install --no-install-recommends ballz-data bb ")
    # Of a package that is there in part another file is lacking: it is to be installed again.
    assert "tecnoballz-data" in lacking and "tuxtype-data" not in lacking


@needs_libopenmpt
def test_packages_may_be_unpacked_into_a_folder_each(tmp_path):
    source = written(tmp_path, song(), f"tecnoballz-data/{PLACE}")
    found = [one for one in modules.tracks(source, grid=GRID) if not one.left_out]
    assert [one.id for one in found] == ["tecnoballz-data/tecnoballz.mod"]
    assert found[0].split == "train" and found[0].seconds == 193


@needs_libopenmpt
def test_a_damaged_module_is_skipped_with_its_name(tmp_path):
    (one,) = [
        one
        for one in modules.tracks(written(tmp_path, song()[:1200]), grid=GRID)
        if not one.left_out
    ]
    recording = one.load()  # players take what is cut off as silence
    assert not recording.audio.any()
    with pytest.raises(track.BadTrack, match="silent file"):
        track.check(recording)
    (tmp_path / PLACE).write_bytes(b"no module")
    with pytest.raises(ValueError, match=r"tecnoballz\.mod: is cut off after 9 bytes"):
        one.load()


def test_without_packages_or_libopenmpt_the_command_is_said(tmp_path, monkeypatch, capsys):
    with pytest.raises(FileNotFoundError, match=r"`apt-get install .* ballz-data bb .* vor`"):
        modules.tracks(str(tmp_path), grid=GRID)

    def none() -> None:
        raise ModuleNotFoundError(f"libopenmpt is not there: `{openmpt.INSTALL}`")

    monkeypatch.setattr(openmpt, "require", none)
    call = ["--dataset=modules", f"--source={written(tmp_path, song())}"]
    assert prepare.main([*call, f"--output={tmp_path / 'out'}"]) == 1
    assert f"`{openmpt.INSTALL}`" in capsys.readouterr().err


def test_no_package_and_no_author_is_in_two_splits():
    rows = modules.listed()
    assert len({one.id for one in rows}) == len(rows) == 192
    assert len({one.package for one in rows}) == 35
    of = collections.defaultdict(set)
    for one in rows:
        if not one.left_out:
            of[one.package].add(one.split)
            if one.author != "unknown":
                of[one.author].add(one.split)
    assert {name: splits for name, splits in of.items() if len(splits) > 1} == {}
    assert all(len(row) == 6 for row in read_split(modules.SPLIT_LIST))


INSTALLED = [one for one in modules.listed() if (ROOT / one.path).is_file()]


@needs_libopenmpt
@pytest.mark.skipif(
    not INSTALLED, reason=f"needs modules: {modules.install({'heroes-sound-tracks', 'vor'})}"
)
def test_stems_of_installed_modules_sum_to_the_mixture():
    short = sorted(INSTALLED, key=lambda one: one.seconds)
    for one in [one for one in short if not one.left_out][:2]:
        recording = modules.load(ROOT / one.path, grid=STEREO)
        track.check(recording)
        mixture = played((ROOT / one.path).read_bytes(), STEREO)
        gain = recording.audio.sum(axis=1).std() / mixture.std()
        assert left_db(mixture * gain, recording.audio) < -90, one.id
