"""What a batch is: keys, axes, units. Read this first.

A batch is a dict of arrays whose first axis is the example; a record on disk and a whole track for
evaluation have the same keys without that axis. Axis words, used in all shape annotations:

    batch    examples               time       samples of audio
    stem     sources of a mixture   channel    audio channels: 1 mono, 2 stereo
    voice    simultaneous pitches   frame      label and STFT frames
    frequency  STFT bins            bin        pitch bins

Frame k is centred at sample k * hop_samples: time always comes from sample counts. A segment of T
samples has T // hop_samples frames.

Keys:

    stems      int16   [batch, time, stem, channel]  full scale 32768; THE SUM OVER STEMS IS THE
    MIXTURE. Where the
                                                     stems are not known, stem 0 holds the mixture
                                                     and the others zeros.
    has_stems  bool    [batch, stem]                 the audio of this stem is a label
    f0_hz      float32 [batch, frame, voice]         pitch, 0 = unvoiced
    has_pitch  bool    [batch, frame, voice]         this pitch (a 0 as well) is a label
    index      uint32  [batch]                       number of the example in the run: its
               randomness is fold_in(key, index)

Whose pitch a voice is depends on the data set. As many voices as stems, voice i being that of stem
i; or the pitches of the mixture, in no particular order: then a voice that is not needed has f0 0,
and is a label where all the others are. A stream has one kind or the other (`datasets/records.py`,
Source).

Missing labels are masks, so that every batch has one shape whatever its examples come with.
"""

from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int16, UInt32
from typing_extensions import TypedDict

Params = Mapping[str, Any]
"""A tree of arrays that training changes."""
Variables = Mapping[str, Any]
"""{"params": Params, **mutables}: all that a network is applied with."""
Key = jax.Array
"""A key of jax.random."""


class Batch(TypedDict):
    """The keys above; NumPy arrays on the host, JAX arrays inside the step."""

    stems: Int16[Array, "batch time stem channel"]
    has_stems: Bool[Array, "batch stem"]
    f0_hz: Float[Array, "batch frame voice"]
    has_pitch: Bool[Array, "batch frame voice"]
    index: UInt32[Array, "batch"]
