"""Networks of majl_jax as one would write them in PyTorch, loaded only where they are timed."""
