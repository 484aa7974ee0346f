"""Sets of unlike stems in one stream: the same places from disk and memory, and no sample
changed.
"""

import json

import numpy as np
import pytest
from made_records import HOP

from majl_jax.datasets import builder, records
from majl_jax.datasets.input import memory, stem_places, tf_data
from majl_jax.datasets.input.sources import Source, mixture_sources, target_first

SEGMENT = 40
OPTIONS = {"batch_size": 10, "segment_samples": SEGMENT, "seed": 5}
STEMS = {
    "full": ("rest", "voice"),
    "stems_only": ("drums", "bass", "other", "vocals"),
    "pitch_only": ("voice", "rest"),
}
PLACES = {
    "full": ("voice", "rest", "", ""),
    "stems_only": ("vocals", "drums", "bass", "other"),
    "pitch_only": ("voice", "rest", "", ""),
}
CODES = {"full": 1, "stems_only": 2, "pitch_only": 3}  # in the first sample of the mixture


def made(name: str, channels: int = 1) -> records.Record:
    """One record of loud noise; the f0 of stem s at frame k is 100 s + k + 1."""
    rng = np.random.default_rng(CODES[name])
    stems, frames = len(STEMS[name]), SEGMENT // HOP
    audio = rng.integers(-32768, 32768, (SEGMENT, stems, channels)).astype(np.int16)
    f0_hz = (100 * np.arange(stems) + np.arange(1, frames + 1)[:, None]).astype(np.float32)
    if name == "pitch_only":
        audio[:, 1:] = 0
    audio[0], audio[0, 0] = 0, CODES[name]
    return {
        "stems": audio,
        "has_stems": np.full(stems, name != "pitch_only"),
        "f0_hz": f0_hz * (name != "stems_only"),
        "has_pitch": np.full((frames, stems), name != "stems_only"),
        "track": name,
        "start_sample": 0,
        "valid_samples": SEGMENT,
    }


def write(folder, name: str, channels: int = 1, rate_hz: int = 200):
    layout = records.Layout(STEMS[name], channels, rate_hz, HOP, SEGMENT)
    builder.write_dataset(folder, {"train": [made(name, channels)]}, layout=layout)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {name: write(root / name, name) for name in STEMS}


@pytest.fixture
def sources(folders):
    weights = {"full": 5.0, "stems_only": 3.0, "pitch_only": 2.0}
    return [Source(folders[n], "train", weights[n], PLACES[n]) for n in STEMS]


@pytest.fixture(params=["pipeline", "memory"])
def open_batches(request):
    return {"pipeline": tf_data, "memory": memory}[request.param].open_batches


def examples(batch: dict[str, np.ndarray]):
    """Of each example of a batch: the name of its set, and its arrays."""
    names = {code: name for name, code in CODES.items()}
    mixture = batch["stems"].astype(np.int64).sum(2)
    for number in range(len(mixture)):
        one = {key: value[number] for key, value in batch.items()}
        yield names[int(mixture[number, 0, 0])], one


def test_both_readers_give_the_same(sources):
    # One record per set, as long as the segment: nothing is drawn by chance.
    on_disk, in_memory = (m.open_batches(sources, **OPTIONS) for m in (tf_data, memory))
    for _ in range(3):
        one, other = next(on_disk), next(in_memory)
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype and one[key].shape == other[key].shape
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_the_ratio_is_as_asked_and_every_stem_in_its_place(open_batches, sources):
    batches, seen = open_batches(sources, **OPTIONS), []
    for _ in range(20):
        for name, one in examples(next(batches)):
            seen.append(name)
            stored = made(name)
            mixture = stored["stems"].astype(np.int64).sum(1)
            np.testing.assert_array_equal(one["stems"].astype(np.int64).sum(1), mixture)
            for place, stem in enumerate(PLACES[name]):
                if not stem:
                    assert not one["stems"][:, place].any() and not one["f0_hz"][:, place].any()
                    assert not one["has_pitch"][:, place].any()
                    assert one["has_stems"][place] == stored["has_stems"].all()
                    continue
                number = STEMS[name].index(stem)
                if name != "pitch_only":
                    expected = stored["stems"][:, number]
                    np.testing.assert_array_equal(one["stems"][:, place], expected)
                assert one["has_stems"][place] == stored["has_stems"][number]
                for key in ("f0_hz", "has_pitch"):
                    np.testing.assert_array_equal(one[key][:, place], stored[key][:, number])
    assert {name: seen.count(name) for name in STEMS} == {
        "full": 100,
        "stems_only": 60,
        "pitch_only": 40,
    }


@pytest.mark.parametrize("places", [("rest", "voice", "", ""), ("voice", "rest", "", "")])
def test_an_undivided_mixture_stays_in_place_0(open_batches, folders, places):
    source = [Source(folders["pitch_only"], "train", 1.0, places)]
    stored = made("pitch_only")
    one = {key: value[0] for key, value in next(open_batches(source, **OPTIONS)).items()}
    np.testing.assert_array_equal(one["stems"][:, 0], stored["stems"][:, 0])
    assert not one["stems"][:, 1:].any() and not one["has_stems"].any()
    voice = places.index("voice")  # labels go by name all the same
    np.testing.assert_array_equal(one["f0_hz"][:, voice], stored["f0_hz"][:, 0])


def test_a_partly_known_record_goes_by_name_and_its_silent_places_are_unknown():
    stored = made("full")
    stored["has_stems"][:] = False, True  # as a teacher leaves it: the voice is trusted
    numbers = stem_places.stem_numbers(STEMS["full"], PLACES["full"], data_set="full")
    one = stem_places.place(stored, numbers)
    assert one["has_stems"].tolist() == [True, False, False, False]
    np.testing.assert_array_equal(one["stems"][:, 0], stored["stems"][:, 1])


@pytest.mark.parametrize("name", ["pitch_only", "full"])
def test_of_a_set_without_the_target_silence_in_place_0_is_a_label(open_batches, folders, name):
    stems = ("", *STEMS[name], "")
    source = Source(folders[name], "train", 1.0, stems, without_first=True)
    one = {key: value[0] for key, value in next(open_batches([source], **OPTIONS)).items()}
    np.testing.assert_array_equal(one["stems"][:, 1:3], made(name)["stems"])
    assert not one["stems"][:, [0, 3]].any() and one["has_stems"].all()
    assert not one["f0_hz"].any() and one["has_pitch"][:, 0].all()
    assert not one["has_pitch"][:, 1:].any()


def test_pitches_of_the_mixture_of_a_set_without_the_target_do_not_count(open_batches, tmp_path):
    stored = made("full")
    shape = (SEGMENT // HOP, 5)
    stored["f0_hz"], stored["has_pitch"] = np.full(shape, 440.0, np.float32), np.ones(shape, bool)
    layout = records.Layout(STEMS["full"], 1, 200, HOP, SEGMENT, voices=5)
    builder.write_dataset(tmp_path / "many", {"train": [stored]}, layout=layout)
    source = Source(tmp_path / "many", "train", 1.0, ("", "rest", "voice"), without_first=True)
    one = {key: value[0] for key, value in next(open_batches([source], **OPTIONS)).items()}
    assert not one["f0_hz"].any()
    assert one["has_pitch"].tolist() == [[True, False, False]] * len(one["has_pitch"])


def test_a_set_without_the_target_lies_beside_others(open_batches, sources):
    silent = ("", *STEMS["full"], "")
    without = sources[0]._replace(stems=silent, weight=10.0, without_first=True)
    batch = next(open_batches([*sources, without], **{**OPTIONS, "batch_size": 40}))
    known = batch["has_stems"].all(1) & batch["has_pitch"][:, :, 0].all(1)
    assert np.sum(known & ~batch["stems"][:, :, 0].any((1, 2))) == 20
    with pytest.raises(ValueError, match='expected "" first'):
        open_batches([without._replace(stems=("rest", "voice", "", ""))], **OPTIONS)


def test_a_position_stays_exact_and_belongs_to_its_places(open_batches, sources):
    running = open_batches(sources, **OPTIONS)
    for _ in range(3):
        next(running)
    state, rest = running.save(), next(running)
    assert json.loads(state)["step"] == 3
    fresh = open_batches(sources, **OPTIONS)
    fresh.restore(state)
    again = next(fresh)
    for key in rest:
        np.testing.assert_array_equal(again[key], rest[key])
    swapped = [sources[0]._replace(stems=("rest", "voice", "", "")), *sources[1:]]
    with pytest.raises(ValueError, match="other data: stems was"):
        open_batches(swapped, **OPTIONS).restore(state)


def test_a_position_from_before_there_were_places_is_accepted(open_batches, folders):
    batches = open_batches([(folders["full"], "train", 1.0)], **OPTIONS)
    state = json.loads(batches.save())
    del state["settings"]["stems"]
    batches.restore(json.dumps(state).encode())


def test_stereo_and_a_reordering_without_silent_places(open_batches, tmp_path):
    folder = write(tmp_path / "stereo", "full", channels=2)
    (source,) = [Source(folder, "train", 1.0, ("voice", "rest"))]
    batch = next(open_batches([source], **OPTIONS))
    np.testing.assert_array_equal(batch["stems"][0], made("full", 2)["stems"][:, ::-1])


def test_a_silent_place_between_stems(open_batches, folders):
    source = Source(folders["full"], "train", 1.0, ("rest", "", "voice"))
    batch = next(open_batches([source], **OPTIONS))
    stored = made("full", 1)["stems"]
    np.testing.assert_array_equal(batch["stems"][0][:, [0, 2]], stored)
    assert not batch["stems"][0][:, 1].any() and batch["has_stems"].all()


@pytest.mark.parametrize(
    "stems", [("voice",), ("voice", "voice"), ("voice", ""), ("voice", "rest", "bass"), ()]
)
def test_other_stems_than_the_set_has_are_refused(open_batches, folders, stems):
    with pytest.raises(ValueError) as error:
        open_batches([Source(folders["full"], "train", 1.0, stems)], **OPTIONS)
    for part in (folders["full"], STEMS["full"], stems):
        assert str(part) in str(error.value)


def test_unequal_numbers_of_places_are_refused(open_batches, folders, sources):
    for second in ((folders["pitch_only"], "train", 1.0), sources[2]._replace(stems=None)):
        with pytest.raises(ValueError, match=r"stems is \('voice', 'rest'\) there, .*'voice', "):
            open_batches([sources[0], second], **OPTIONS)


def test_other_channels_and_rates_stay_refused(open_batches, tmp_path, sources):
    for name, options in {"channels": {"channels": 2}, "sample_rate_hz": {"rate_hz": 100}}.items():
        folder = write(tmp_path / name, "full", **options)
        with pytest.raises(ValueError, match=f"{name} is"):
            open_batches([sources[0], sources[0]._replace(directory=folder)], **OPTIONS)


def test_the_target_first(folders):
    layouts = {name: records.open_prepared(folder).layout for name, folder in folders.items()}
    names = ("voice", "vocals", "soprano")
    for name, layout in layouts.items():
        assert target_first(layout, names, 4) == PLACES[name]
    for wanted in (("guitar",), ("drums", "vocals")):
        with pytest.raises(ValueError) as error:
            target_first(layouts["stems_only"], wanted, 4, data_set="data/musdb18")
        for part in ("data/musdb18", STEMS["stems_only"], wanted):
            assert str(part) in str(error.value)
    with pytest.raises(ValueError, match=r"musdb18 has 4 stems .* more than 3 places"):
        target_first(layouts["stems_only"], names, 3, data_set="musdb18")


# Pitches of the mixture: sets of 4 stems with a pitch each, of one stem with 5 pitches, and
# without any label.
MIXTURES = {"four": (("a", "b", "c", "d"), 0), "five": (("mix",), 5), "bare": (("mix",), 1)}
MIXTURE_CODES = {"four": 1, "five": 2, "bare": 3}


def made_mixture(name: str) -> records.Record:
    """One record; f0 of voice v at frame k is 100 v + k + 1. Every third frame one voice is no
    label.
    """
    stems, voices = MIXTURES[name]
    voices, frames = voices or len(stems), SEGMENT // HOP
    audio = np.random.default_rng(MIXTURE_CODES[name]).integers(-99, 99, (SEGMENT, len(stems), 1))
    audio[0], audio[0, 0] = 0, MIXTURE_CODES[name]
    has_pitch = np.full((frames, voices), name != "bare")
    has_pitch[::3, -1] = False
    f0_hz = 100 * np.arange(voices) + np.arange(1, frames + 1)[:, None]
    return {
        "stems": audio.astype(np.int16),
        "has_stems": np.full(len(stems), name == "four"),
        "f0_hz": (f0_hz * (name != "bare")).astype(np.float32),
        "has_pitch": has_pitch,
        "track": name,
        "start_sample": 0,
        "valid_samples": SEGMENT,
    }


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixtures")
    for name, (stems, voices) in MIXTURES.items():
        layout = records.Layout(stems, 1, 200, HOP, SEGMENT, voices)
        builder.write_dataset(root / name, {"train": [made_mixture(name)]}, layout=layout)
    return {name: root / name for name in MIXTURES}


def shares(mixtures) -> dict:
    return {mixtures["four"]: 5.0, mixtures["five"]: 3.0, mixtures["bare"]: 2.0}


def test_mixture_sources_pad_to_the_largest(mixtures):
    given = mixture_sources(shares(mixtures), "train")
    assert [one.stems for one in given] == [("a", "b", "c", "d"), *[("mix", "", "", "")] * 2]
    assert [one.voices for one in given] == [5, 5, 5]
    assert [one.weight for one in given] == [5.0, 3.0, 2.0]


@pytest.mark.parametrize("voices", [5, 7])
def test_pitches_of_mixtures_keep_their_order_and_the_rest_is_empty(open_batches, mixtures, voices):
    given = mixture_sources(shares(mixtures), "train")
    batches, seen = open_batches([one._replace(voices=voices) for one in given], **OPTIONS), []
    names = {code: name for name, code in MIXTURE_CODES.items()}
    for batch in (next(batches) for _ in range(3)):
        assert batch["f0_hz"].shape == batch["has_pitch"].shape == (10, SEGMENT // HOP, voices)
        assert batch["has_pitch"].dtype == bool and batch["stems"].shape == (10, SEGMENT, 4, 1)
        for number, code in enumerate(batch["stems"][:, 0].sum((1, 2))):
            seen.append(names[int(code)])
            stored, one = made_mixture(seen[-1]), {k: v[number] for k, v in batch.items()}
            real = stored["f0_hz"].shape[1]
            for key in ("f0_hz", "has_pitch"):
                np.testing.assert_array_equal(one[key][:, :real], stored[key])
            assert not one["f0_hz"][:, real:].any()
            complete = stored["has_pitch"].all(axis=1)
            for voice in range(real, voices):
                np.testing.assert_array_equal(one["has_pitch"][:, voice], complete)
            np.testing.assert_array_equal(one["stems"].sum(1), stored["stems"].sum(1))
    assert {name: seen.count(name) for name in MIXTURES} == {"four": 15, "five": 9, "bare": 6}


def test_both_readers_give_the_same_pitches_of_mixtures(mixtures):
    given = mixture_sources(shares(mixtures), "train")
    on_disk, in_memory = (m.open_batches(given, **OPTIONS) for m in (tf_data, memory))
    for _ in range(3):
        one, other = next(on_disk), next(in_memory)
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype and one[key].shape == other[key].shape
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
    assert on_disk.settings == in_memory.settings


def test_a_set_with_pitches_of_the_mixture_as_it_is(open_batches, mixtures):
    stored = made_mixture("five")
    batch = next(open_batches([(mixtures["five"], "train", 1.0)], **OPTIONS))
    for key in ("stems", "has_stems", "f0_hz", "has_pitch"):
        np.testing.assert_array_equal(batch[key][3], stored[key])


def test_a_position_belongs_to_its_number_of_voices(open_batches, mixtures):
    source = Source(mixtures["four"], "train", 1.0, None, 5)
    state = open_batches([source], **OPTIONS).save()
    open_batches([source], **OPTIONS).restore(state)
    for voices in (6, None):
        with pytest.raises(ValueError, match="other data: voices was 5"):
            open_batches([source._replace(voices=voices)], **OPTIONS).restore(state)


def test_more_voices_than_places_are_refused(open_batches, mixtures):
    with pytest.raises(ValueError, match=r"five has 5 voices, more than 4 places"):
        open_batches([Source(mixtures["five"], "train", 1.0, None, 4)], **OPTIONS)


def test_pitches_that_belong_to_no_stem_cannot_go_by_name(open_batches, mixtures):
    with pytest.raises(ValueError, match=r"five has 5 pitches .* \('mix', ''\); give"):
        open_batches([Source(mixtures["five"], "train", 1.0, ("mix", ""))], **OPTIONS)
    # One pitch of one stem is that stem's.
    by_name = Source(mixtures["bare"], "train", 1.0, ("mix", ""))
    assert next(open_batches([by_name], **OPTIONS))["f0_hz"].shape[2] == 2


@pytest.mark.parametrize("voices", [(None, 4), (4, None), (6, 5)])
def test_unequal_numbers_of_voices_are_refused(open_batches, folders, mixtures, voices):
    places = ("voice", "rest", "", ""), ("a", "b", "c", "d")
    pairs = zip((folders["full"], mixtures["four"]), places, voices, strict=True)
    with pytest.raises(ValueError, match=r"four cannot be .* voices is .*give every source"):
        open_batches(
            [Source(folder, "train", 1.0, stems, v) for folder, stems, v in pairs],
            **OPTIONS,
        )


def test_sets_of_the_same_stem_and_unequal_voices_are_refused_as_they_are(open_batches, mixtures):
    with pytest.raises(ValueError, match=r"bare .* voices is one per stem \(1\) there, 5 of the"):
        open_batches([(mixtures[name], "train", 1.0) for name in ("five", "bare")], **OPTIONS)
