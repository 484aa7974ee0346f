"""Networks as Flax Linen modules, channel last; they know arrays only."""
