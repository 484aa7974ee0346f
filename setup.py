"""What setup.cfg has no words for: configs/ and data/splits/ become packages of the wheel."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["majl_jax", "majl_jax.*"]),
        "majl_jax.configs",
        "majl_jax.splits",
    ],
    package_dir={"majl_jax.configs": "configs", "majl_jax.splits": "data/splits"},
    package_data={"majl_jax": ["pretrained/*.safetensors"], "majl_jax.splits": ["*.txt"]},
)
