"""HarmoF0 from the state dictionary of WX-Wei/HarmoF0."""

from majl_jax.published.filling import Tensors, Variables


def convert_harmof0(tensors: Tensors) -> Variables:
    raise NotImplementedError
