"""majl_jax: music information retrieval when labels are few, five papers on one training loop."""

__version__ = "0.1.0"
