"""What the log says of a term that some steps do not have."""

import math

import jax.numpy as jnp

from majl_jax.training.step_metrics import StepMetrics


def _metrics(loss, share):
    terms = {"loss": jnp.float32(loss), "share": jnp.float32(share)}
    return {"terms": terms, "checks": {"loss": terms["loss"]}}


def test_a_mean_over_nothing_does_not_count():
    metrics = StepMetrics("stage", skip=False, carried={})
    for step, share in enumerate((math.nan, 2.0, 4.0), start=1):
        metrics.add(step, _metrics(1.0, share))
    metrics.fetch()
    assert metrics.means() == {"loss": 1.0, "share": 3.0}


def test_a_term_that_no_step_has_is_left_out_also_after_a_restart():
    before = StepMetrics("stage", skip=False, carried={})
    before.add(1, _metrics(1.0, math.nan))
    before.fetch()
    after = StepMetrics("stage", skip=False, carried=before.carried())
    after.add(2, _metrics(3.0, math.nan))
    after.fetch()
    assert after.means() == {"loss": 2.0}
