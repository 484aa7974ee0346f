"""Which stem a name is of: the built-in table, one of one's own, and the names of real songs."""

import json

import pytest
from places import RECORDINGS

from majl_jax.datasets import name_table

STEMS = {
    "vocals": ("VOX LEAD", "BGVOX ECHO", "LeadVox_2", "vocals", "Backing Vocals", "choir 1", "BV"),
    "drums": ("KICK", "Kick2", "01_snare-top", "HiHat", "OH L", "K & SN", "Bass Drum", "DRUM MIX"),
    "bass": ("SY BASS", "Bass DI", "sub", "808", "SynthBass", "ContraBass"),
    "other": ("MINILOGUE_SYNTH", "Gtr 1", "Piano", "ECHO PAD", "123", "Basset horn"),
    name_table.LEFT_OUT: ("mix", "Full Mix", "Master", "Click Track"),
}
STEMS["drums"] += ("Drum Mix 2", "Kick Mix")
STEMS["bass"] += ("Bass Master",)
STEMS["other"] += ("Remix", "Mix Pad", "Mixer", "24bit")
# With numbers, or the name of a song.
STEMS[name_table.LEFT_OUT] += ("Mix 1", "MIX_01", "Mix2", "01 Mixture", "Song_MIX", "Rough Mix")
STEMS[name_table.LEFT_OUT] += ("Master 24bit", "Master 24 bit 44.1kHz", "Stereo Mix 2", "mix_v3")
STEMS[name_table.LEFT_OUT] += ("02 - Song 7 (Master)", "click 2")


@pytest.mark.parametrize(("stem", "name"), [(s, n) for s, names in STEMS.items() for n in names])
def test_the_built_in_table_knows_what_parts_are_called(stem, name):
    assert name_table.stem_of(name_table.BUILT_IN, [name]) == stem


def test_folders_say_what_a_name_does_not_the_nearest_first():
    def of(*names):
        return name_table.stem_of(name_table.BUILT_IN, names)

    assert of("01", "take 2", "Bass", "Drums") == "bass"
    assert of("kick", "Bass") == "drums"
    assert of("01", "take 2") == "other"


def test_lines_of_ones_own_come_first(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("# mine\nguitar: gtr*, *lead guitar\n-: scratch vox\nbass: sine # low\n")
    table = name_table.read(str(path))
    assert name_table.stems(table) == ("guitar", "bass", "vocals", "drums", "other")
    names = ("GTR 1", "The Lead Guitar", "scratch vox", "scratch vox 2", "scratch vox up", "SINE")
    found = [name_table.stem_of(table, [name]) for name in (*names, "VOX")]
    assert found == ["guitar", "guitar", "-", "-", "vocals", "bass", "vocals"]


def test_a_table_that_ends_in_a_star_is_all_there_is(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("strings: violin*\nrest: *\n")
    table = name_table.read(str(path))
    assert name_table.stem_of(table, ["violin 2"]) == "strings"
    assert name_table.stem_of(table, ["flute"]) == "rest"


def test_a_number_that_a_table_names_is_one(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("-: take 2\n")
    table = name_table.read(str(path))
    assert [name_table.stem_of(table, [f"take {n}"]) for n in (1, 2)] == ["other", "-"]


def test_a_mix_in_the_folder_of_a_stem_is_of_that_stem():
    assert name_table.stem_of(name_table.BUILT_IN, ["Rough Mix", "Drums"]) == "drums"


@pytest.mark.parametrize("line", ["drums", "drums:", ": kick", "drums: kick,, hat"])
def test_a_line_of_another_form_is_refused(line):
    with pytest.raises(ValueError, match=r"names\.txt, line 2: '.*'; expected \"STEM: PATTERN"):
        name_table.parse(f"\n{line}\n", name="names.txt")


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.txt: no such table of names; expected lines"):
        name_table.read(str(tmp_path / "no.txt"))


def test_the_parts_of_seven_real_songs_are_sorted_as_by_hand():
    contents = RECORDINGS / "remixed_stems/contents.json"
    if not contents.is_file():
        pytest.skip(f"{contents} is not there")
    wrong, count = {}, 0
    for song, said in json.loads(contents.read_text()).items():
        for stem, parts in said["stems"].items():
            for name, *_ in parts:
                count += 1
                if (found := name_table.stem_of(name_table.BUILT_IN, [name])) != stem:
                    wrong[song, name] = (stem, found)
    assert count == 148
    assert wrong == {
        ("Potassium", "PAD + BASS"): ("other", "bass"),
        ("Rubidium", "MELODY BREAK"): ("other", "drums"),
        ("Francium", "SINE"): ("bass", "other"),
    }
