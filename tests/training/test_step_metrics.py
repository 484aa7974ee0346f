"""What the log says of a term that some steps do not have."""

import math

import jax.numpy as jnp

from majl_jax.training.step_metrics import Readings


def _reading(loss, share):
    terms = {"loss": jnp.float32(loss), "share": jnp.float32(share)}
    return {"terms": terms, "checks": {"loss": terms["loss"]}}


def test_a_mean_over_nothing_does_not_count():
    readings = Readings("stage", skip=False, carried={})
    for step, share in enumerate((math.nan, 2.0, 4.0), start=1):
        readings.add(step, _reading(1.0, share))
    readings.fetch()
    assert readings.means() == {"loss": 1.0, "share": 3.0}


def test_a_term_that_no_step_has_is_left_out_also_after_a_restart():
    before = Readings("stage", skip=False, carried={})
    before.add(1, _reading(1.0, math.nan))
    before.fetch()
    after = Readings("stage", skip=False, carried=before.carried())
    after.add(2, _reading(3.0, math.nan))
    after.fetch()
    assert after.means() == {"loss": 2.0}
