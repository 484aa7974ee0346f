"""URMP: a made-up copy, its parts and pitches, the split and its halves, and what is wrong with a
piece.
"""

import dataclasses
import pathlib

import numpy as np
import pytest
import scipy.interpolate
from made_copies.urmp import CHANGE_S, END_S, ROW_S, SECONDS, truth, write_piece, write_rows

from majl_jax.datasets import records, splits, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, urmp
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

GRIDS = [(16000, 160), (22050, 256), (44100, 512)]
GRID = Grid(16000, 160)


def load(folder: pathlib.Path, *, view: str = "stems", **options) -> track.Recording:
    recording = urmp.load(folder, view=view, grid=dataclasses.replace(GRID, **options))
    track.check(recording)
    return recording


def test_parts_sum_to_the_mixture_and_absent_ones_are_silent_and_known(tmp_path):
    folder = write_piece(tmp_path)
    parts, mixture = load(folder), load(folder, view="mixture")
    assert parts.stems == urmp.STEMS == READERS["urmp"].stems and parts.voices == 0
    assert parts.audio.shape == (32000, 5, 1) and parts.has_stems.all() and parts.has_pitch.all()
    assert not parts.audio[:, 2:].any() and not parts.f0_hz[:, 2:].any()
    np.testing.assert_allclose(parts.audio.sum(1), mixture.audio[:, 0], atol=1e-5)
    assert np.abs(parts.audio[:, 0]).max() == pytest.approx(0.15, abs=0.02)
    assert mixture.stems == ("mixture",) == READERS["urmp_mixes"].stems
    assert mixture.voices == 5 == READERS["urmp_mixes"].voices and not mixture.has_stems.any()
    for key in ("f0_hz", "has_pitch"):
        np.testing.assert_array_equal(getattr(mixture, key), getattr(parts, key))


@pytest.mark.parametrize(("rate_hz", "hop"), GRIDS)
def test_labels_are_those_of_the_nearest_row_at_any_rate(tmp_path, rate_hz, hop):
    recording = load(write_piece(tmp_path), sample_rate_hz=rate_hz, hop_samples=hop)
    frames = int(SECONDS * rate_hz) // hop
    times_s, rows_s = np.arange(frames) * hop / rate_hz, np.arange(200) * ROW_S
    assert recording.f0_hz.shape == (frames, 5)
    for part in (1, 2):
        nearest = scipy.interpolate.interp1d(
            rows_s, truth(part, rows_s), "nearest", bounds_error=False, fill_value=(np.nan, 0.0)
        )
        np.testing.assert_array_equal(recording.f0_hz[:, part - 1], nearest(times_s))
    assert {*recording.f0_hz[:, 1]} == {400.0, 600.0, 0.0}


def test_the_label_clock_agrees_with_the_sound(tmp_path):
    recording = load(write_piece(tmp_path))
    for part in range(2):
        voice = recording.audio[:, part, 0]
        for time_s, before_hz, after_hz in ((CHANGE_S, 1, 1.5), (END_S, 1.5, 0)):
            sample, frame = int(time_s * 16000), round(time_s * 100)
            for sound, wanted in ((voice[sample - 1600 : sample], before_hz),
                                  (voice[sample + 80 : sample + 1680], after_hz)):  # fmt: skip
                peak = np.argmax(np.abs(np.fft.rfft(sound * np.hanning(1600)))) * 10.0
                loud = np.abs(sound[400:1200]).max() > 0.01
                assert loud * peak == pytest.approx(wanted * 200 * (part + 1), abs=10)
            labels = recording.f0_hz[frame - 5 : frame + 6, part]
            (change,) = np.flatnonzero(np.diff(labels))
            assert abs(change - 5) <= 1


def test_beyond_its_rows_an_annotation_is_held(tmp_path):
    folder = write_piece(tmp_path)
    write_rows(folder / "F0s_1_fl_03_Dance.txt", np.array([0.1, 1.0, 1.9]), np.array([111, 0, 222]))
    labels = load(folder).f0_hz[:, 0]
    np.testing.assert_array_equal(labels, np.repeat([111, 0, 222], [56, 90, 54]))


def test_the_mixture_needs_no_part_and_the_parts_no_mixture(tmp_path):
    folder = write_piece(tmp_path, "17_Nocturne_vn_fl_cl")
    (folder / "AuMix_17_Nocturne_vn_fl_cl.wav").rename(tmp_path / "mixture.wav")
    assert load(folder).f0_hz[:, 2].max() == 900
    with pytest.raises(BadTrack, match=r"AuMix_\*\.wav: expected one such file, found none"):
        load(folder, view="mixture")
    (tmp_path / "mixture.wav").rename(folder / "AuMix_17_Nocturne_vn_fl_cl.wav")
    (folder / "AuSep_2_fl_17_Nocturne.wav").unlink()
    assert load(folder, view="mixture").f0_hz[:, 2].max() == 900
    with pytest.raises(BadTrack, match=r"AuSep_2_\*\.wav: expected one such file, found none"):
        load(folder)


def test_split_and_halves(tmp_path):
    rows = splits.read_split(urmp.SPLIT_LIST)
    assert [row[0] for row in rows] == [f"{number:02d}" for number in range(1, 45)]
    valid = {number for number, split, _ in rows if split == "valid"}
    assert valid == {"01", "02", "12", "13", "24", "25", "31", "38", "39"}
    halves = {which: {n for n, _, given in rows if given == which} for which in ("T1", "T2", "-")}
    assert halves["T2"] == {"03", "04", "05", "14", "15", "16", "26", "27", "40", "41"}
    assert halves["-"] == valid and len(halves["T1"]) == 25
    for number in ("01", "03", "06", "45"):
        (tmp_path / "Dataset" / f"{number}_Piece_vn_vc").mkdir(parents=True)

    def listed(name: str) -> dict[str, tuple[str, str]]:
        found = READERS[name].tracks(str(tmp_path), grid=GRID)
        return {one.id[:2]: (one.split, one.left_out) for one in found}

    for name in ("urmp", "urmp_mixes"):
        assert listed(name) == {
            "01": ("valid", ""),
            "03": ("train", ""),
            "06": ("train", ""),
            "45": ("train", urmp.NOT_LISTED),
        }
    assert [n for n, (_, why) in listed("urmp_t1").items() if not why] == ["01", "06"]
    assert [n for n, (_, why) in listed("urmp_t2").items() if not why] == ["01", "03"]


def test_a_wrong_folder_is_told_what_is_expected(tmp_path):
    for source in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"no copy of URMP: expected NN_Piece_INS1"):
            urmp.tracks(str(source), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing"):
        urmp.tracks(None, grid=GRID)
    with pytest.raises(ValueError, match="'T3'"):
        urmp.tracks(str(tmp_path), half="T3", grid=GRID)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"F0s_2_\*\.txt: expected one such file, found none"),
        ("", "0 lines"),
        ("0.0 100\n0.01 sharp\n", r"F0s_2_cl_03_Dance\.txt: .*sharp"),
        ("0.0 100 1\n0.01 100 1\n", "2 lines of 3 numbers"),
        ("0.0 100\n0.01\n", r"F0s_2_cl_03_Dance\.txt: .*columns"),
        ("0.0 100\n0.01 -5\n", r"line 2: time 0.01 s, -5 Hz"),
        ("0.0 100\n0.01 nan\n", r"line 2: .* nan Hz"),
        ("0.0 100\n0.0 100\n", "line 2: time 0 s"),
        ("0.0 100\n0.01 5000\n", "line 2"),
        ("0.0 100\n0.01 100\n", r"F0s_2_cl_03_Dance\.txt: ends at 0.0 s, its audio at 2.0 s"),
    ],
)
def test_bad_annotations_are_named(tmp_path, text, message):
    folder = write_piece(tmp_path)
    path = folder / "F0s_2_cl_03_Dance.txt"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    for view in urmp.VIEWS:
        with pytest.raises(BadTrack, match=message):
            urmp.load(folder, view=view, grid=GRID)


def test_bad_audio_and_bad_names_are_named(tmp_path):
    folder = write_piece(tmp_path)
    path = folder / "AuSep_1_fl_03_Dance.wav"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"AuSep_1_fl_03_Dance\.wav"):
        urmp.load(folder, grid=GRID)
    with pytest.raises(BadTrack, match="6 instruments in its name, expected 2 to 5"):
        urmp.load(write_piece(tmp_path, "07_Many_a_b_c_d_e_f"), grid=GRID)


def test_prepared_with_a_bad_piece_it_is_counted_and_the_voices_are_kept(tmp_path, capsys):
    source = tmp_path / "source"
    for name in ("01_One_vn_vc", "03_Three_fl_cl", "04_Four_fl_cl_sax"):
        write_piece(source, name)
    (source / "03_Three_fl_cl" / "F0s_1_fl_03_Three.txt").write_text("no numbers")
    flags = ["--file_format=array_record", "--processes=1", "--max_bad_fraction=0.5"]
    where = [f"--source={source}", f"--output={tmp_path / 'out'}"]
    assert prepare.main(["--dataset=urmp_mixes", *where, *flags]) == 0
    text = capsys.readouterr().out
    assert "1 train, 1 valid, 0 test; 1 skipped" in text
    assert "skipped 03_Three_fl_cl: " in text and "F0s_1_fl_03_Three.txt" in text
    folder = tmp_path / "out" / "urmp_mixes"
    assert records.open_prepared(folder).layout.voices == 5
    (one,) = records.read_tracks(folder, "train")
    assert one["track"] == "04_Four_fl_cl_sax" and {*one["f0_hz"][0]} == {200, 400, 600, 0}
    assert one["has_pitch"].all() and not one["has_stems"].any()
