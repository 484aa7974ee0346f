"""Which stages run, and what is traced before they do."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
import tiny

from majl_jax import parallel
from majl_jax.training import dry_run
from majl_jax.training.stage import chosen

KNOWN = ("first", "second", "third")


def test_chosen_gives_the_names_in_their_order():
    follows = {"second": "first"}
    found = chosen(["third", "first", "second"], KNOWN, field="config.run", follows=follows)
    assert found == ("third", "first", "second")
    assert chosen(("first", "third"), KNOWN, field="config.run", in_order=True) == (
        "first",
        "third",
    )


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ((), r"^run is \(\); expected some of first, second, third$"),
        (("fourth",), r"^run is \('fourth',\); expected some of first, second, third$"),
        (("second",), r"second has to follow first directly, or not$"),
        (("first", "third", "second"), r"second has to follow first directly, or not$"),
    ],
)
def test_chosen_refuses(run, message):
    with pytest.raises(ValueError, match=message):
        chosen(run, KNOWN, field="run", follows={"second": "first"}, advice=", or not")


def test_chosen_refuses_another_order():
    with pytest.raises(ValueError, match="expected some of first, second, third, in this order"):
        chosen(("second", "first"), KNOWN, field="run", in_order=True)


def test_a_loss_is_traced_on_shapes_as_the_only_device():
    seen = []

    def loss(params, mutables, batch, key):
        seen.append({name: (x.shape, str(x.dtype)) for name, x in batch.items()})
        total = jax.lax.psum(jnp.sum(batch["stems"].astype(jnp.float32)), parallel.AXIS)
        return total, (mutables, {})

    def init(key, previous):
        assert previous is None
        return {"params": {"w": jnp.zeros(())}}

    stage = dataclasses.replace(tiny.line_stage(), loss=loss, init=init)
    batch = dry_run.batch_shapes(
        examples=2, segment_samples=12, hop_samples=4, stems=3, voices=5, channels=2
    )
    dry_run.trace_loss(stage, batch)
    assert seen == [
        {
            "stems": ((2, 12, 3, 2), "int16"),
            "has_stems": ((2, 3), "bool"),
            "f0_hz": ((2, 3, 5), "float32"),
            "has_pitch": ((2, 3, 5), "bool"),
            "index": ((2,), "uint32"),
        }
    ]
    broken = dataclasses.replace(stage, loss=lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dry_run.trace_loss(broken, batch)
