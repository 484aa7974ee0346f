"""What scores are called and which of them are of a stem."""

import pytest

from majl_jax.report import score_tables, words


def test_scores_at_the_tuned_threshold_are_scores_of_the_whole():
    names = ["rpa", "oa", "vfa", "precision", "recall", "f1", "vr", "rca"]
    assert words.by_stem([*names, *(f"{name}_tuned" for name in names)]) == {}
    assert words.shown("oa_tuned", 0.75) == words.shown("oa", 0.75) == "75.0"
    assert words.term("oa_tuned_mean") == "OA tuned %" and words.factor("oa_tuned_mean") == 100
    assert words.metric("vfa_tuned").higher_is_better is False


def test_a_stem_may_begin_as_another_does():
    found = words.by_stem(["sdr_db", "sdr_db_voice", "sdr_db_voice_lead"])
    assert found == {
        "voice": {"sdr_db": "sdr_db_voice"},
        "voice_lead": {"sdr_db": "sdr_db_voice_lead"},
    }
    assert words.by_stem(["warmth", "warmth_bass"]) == {"bass": {"warmth": "warmth_bass"}}


@pytest.mark.parametrize(
    ("name", "bold"),
    [("f1", 1), ("vfa", 1), ("polyphony", 0), ("activation_mass", 0), ("contrast", 0), ("own", 0)],
)
def test_what_has_no_better_is_not_bold(name, bold):
    statistics = dict.fromkeys(("std", "median", "weighted", "skipped", "infinite"), 0.0)
    systems = [
        score_tables.System(label, {name: {**statistics, "mean": mean, "count": 2}})
        for label, mean in (("one", 0.25), ("two", 0.5))
    ]
    (table,) = score_tables.tables([systems], "tracks")
    assert table.count("<strong>") == bold
