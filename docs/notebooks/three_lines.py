# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A model in three lines
#
# `jupytext --to ipynb docs/notebooks/three_lines.py`, or open this file in Jupyter with Jupytext
# installed. It needs a trained run (`make run` makes `runs/majl` in minutes) and a song.

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Audio, display

import majl_jax
from majl_jax.audio import files

audio, sample_rate_hz = files.read("song.mp3")  # [time, channel], full scale 1
model = majl_jax.load("runs/majl")
out = model(audio, sample_rate_hz)

# %% [markdown]
# ## What it is
#
# A model of synthetic sound only is of little use on recordings: its card says what it has heard.

# %%
print(model.info)
print("synthetic sound only:", model.info.synthetic)
print("hears up to", model.info.sample_rate_hz // 2, "Hz; scores:", dict(model.info.scores))

# %% [markdown]
# ## Listen
#
# The song, each stem, and what the song is without them.

# %%
rest = audio - sum(out.stems.values())
for name, signal in {"song": audio, **out.stems, "rest": rest}.items():
    print(name)
    display(Audio(signal.T, rate=sample_rate_hz))

# %% [markdown]
# ## Look
#
# Waveforms, and the pitch of the first stem where it is voiced.

# %%
figure, axes = plt.subplots(2 + len(out.stems), 1, figsize=(10, 7), sharex=True)
seconds = np.arange(len(audio)) / sample_rate_hz
for axis, (name, signal) in zip(axes, {"song": audio, **out.stems}.items(), strict=False):
    axis.plot(seconds, signal.mean(1), linewidth=0.3)
    axis.set_ylabel(name)
if out.pitch is not None:
    voiced = out.pitch.f0_hz > 0
    axes[-1].scatter(out.pitch.times_s[voiced], out.pitch.f0_hz[voiced], s=3)
    axes[-1].set(ylabel="pitch (Hz)", yscale="log")
axes[-1].set_xlabel("time (s)")
display(figure)

# %% [markdown]
# ## A part of it, as it comes
#
# In constant memory: blocks go in, what is finished comes out.

# %%
blocks = np.array_split(audio, 10)
parts = [part.stems for part in model.stream(blocks, sample_rate_hz)]
for name, stem in out.stems.items():
    joined = np.concatenate([part[name] for part in parts])
    print(name, "streamed and whole differ by", float(np.abs(joined - stem).max()))
