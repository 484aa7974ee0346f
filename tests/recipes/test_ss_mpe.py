"""What a wrong config of SS-MPE is told before any stage trains."""

import pytest
import smoke_runs

from majl_jax.recipes import ss_mpe

pytestmark = pytest.mark.xdist_group("majl")  # whose worker makes the sets


def test_a_set_cannot_be_labelled_and_unlabelled(smoke, tmp_path):
    config = smoke.config("ss_mpe", data__unlabelled="drums: 1, chorales: 3")
    with pytest.raises(ValueError, match=r"labelled and config.data.unlabelled both have chorales"):
        smoke_runs.stages(config, tmp_path)
    for stage in config.stages.values():
        stage.unlabelled = 0
    ss_mpe.stages(config, tmp_path)


def test_basic_pitch_is_refused_at_a_rate_that_it_does_not_hear():
    config = smoke_runs.load_config("ss_mpe", "smoke")
    config.evaluation.references = "basic_pitch"
    config.data.sample_rate_hz = 16_000
    message = r"references is basic_pitch, which hears 22050 Hz, and config.data.sample_rate_hz is"
    with pytest.raises(ValueError, match=message):
        ss_mpe._references(config)
