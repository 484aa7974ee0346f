# syntax=docker/dockerfile:1
# CPU:  docker build --tag majl_jax .
# CUDA: docker build --tag majl_jax:cuda --build-arg EXTRAS=cuda .   (needs the NVIDIA container toolkit to run)
#
#   docker run --rm --volume "$PWD:/work" majl_jax separate song.mp3 --pitch_only --output=out
#   docker run --rm --gpus=all --volume "$PWD:/work" majl_jax:cuda main --config=majl:quickstart --workdir=runs/majl
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# More of setup.cfg, with commas: cuda brings CUDA itself, as wheels.
ARG EXTRAS=""

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2
# As in the Makefile: large pages on CPU.
ENV GLIBC_TUNABLES=glibc.malloc.hugetlb=1
WORKDIR /opt/majl_jax
COPY setup.cfg setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY data/splits data/splits
COPY majl_jax majl_jax
RUN pip install --constraint constraints.txt ".[formats,pretrained${EXTRAS:+,${EXTRAS}}]"

# Files that it writes belong to who runs it with --user; caches of libraries need a home for that.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["majl-jax"]
CMD ["--help"]
