import dataclasses

import jax.numpy as jnp
import made_music
import numpy as np
import pytest

from majl_jax.audio import mixing
from majl_jax.datasets import builder, records, stem_groups
from majl_jax.datasets.input import memory
from majl_jax.datasets.input.sources import group_sources

TEXT = "band: vocals, rest=bass+drums; songs: vocals=voice, rest=guitar"


def test_the_text_says_which_stems_are_which_source():
    found = stem_groups.parse(TEXT)
    assert found["band"] == {"rest": ("bass", "drums"), "vocals": ("vocals",)}
    assert found["songs"] == {"rest": ("guitar",), "vocals": ("voice",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("band", "does not say which sources"),
        ("band: ", "does not say which sources"),
        ("band: vocals; band: bass", "does not say which sources"),
        ("band: vocals, vocals=bass", "does not say which sources"),
        ("band: rest=bass++drums, vocals", "does not say which sources"),
        ("band: rest=bass+bass, vocals", "does not say which sources"),
        ("band: vocals", "expected two or more"),
        ("band: vocals, rest=bass; songs: voice, rest=guitar", "the same of every set"),
    ],
)
def test_a_text_that_cannot_be_understood(text, message):
    with pytest.raises(ValueError, match=message):
        stem_groups.parse(text)


def test_stems_that_a_set_does_not_have():
    groups = stem_groups.parse("band: vocals, rest=bass+drum")
    with pytest.raises(ValueError, match="band has the stems vocals, bass; its sources name drum"):
        stem_groups.places(groups, {"band": ("vocals", "bass")})
    groups = stem_groups.parse("band: vocals, rest=bass+vocals")
    with pytest.raises(ValueError, match="a stem is in two sources"):
        stem_groups.places(groups, {"band": ("vocals", "bass")})


def _write(folder, stems, tracks, rng):
    voices = 3 if stems[0] == "guitar" else 0  # pitches of the mixture, or one per stem
    layout = dataclasses.replace(made_music.LAYOUT, stems=stems, voices=voices)
    made = []
    for name in range(tracks):
        samples = layout.record_samples
        audio = rng.integers(-3000, 3000, (samples, len(stems), 1)).astype(np.int16)
        frames = samples // layout.hop_samples
        blank = np.zeros((frames, layout.pitch_voices), np.float32)
        track = {"stems": audio, "has_stems": np.ones(len(stems), bool), "track": f"{name}"}
        track |= {"f0_hz": blank, "has_pitch": blank > 0, "start_sample": 0}
        track["valid_samples"] = samples
        made += list(records.cut(track, layout))
    builder.write_dataset(folder, {"train": iter(made)}, layout=layout)


def test_unlike_sets_give_batches_of_the_same_sources(tmp_path):
    rng = np.random.default_rng(0)
    stems = {"band": ("bass", "vocals", "drums", "noise"), "songs": ("guitar", "voice")}
    for number, (name, names) in enumerate(stems.items()):
        _write(tmp_path / name, names, 1 + number, rng)
    groups = stem_groups.parse(TEXT)
    folders = {name: tmp_path / name for name in stems}
    sources, places = group_sources(folders, groups, "train")
    assert places == stem_groups.Places(("rest", "vocals"), 2, 1)
    assert [source.weight for source in sources] == [1.0, 2.0]
    samples = made_music.LAYOUT.record_samples
    batches = memory.open_batches(sources, batch_size=3, segment_samples=samples, seed=0)
    batch = next(batches)
    used = jnp.asarray(batch["stems"][:, :, : -places.left_out], jnp.float32)
    found = np.asarray(mixing.group(used, places.members))[..., 0]
    expected = []
    for name in stems:
        for record in records.read_records(tmp_path / name, "train"):
            audio = record["stems"].astype(np.float32)
            expected.append(stem_groups.of_stems(audio, stems[name], groups[name])[..., 0])
            by_name = dict(zip(stems[name], audio[:, :, 0].T, strict=True))
            for source, of in groups[name].items():
                place = places.sources.index(source)
                total = sum(by_name[stem] for stem in of)
                np.testing.assert_array_equal(expected[-1][:, place], total)
    for one in found:
        assert sum(np.array_equal(one, other) for other in expected) == 1
