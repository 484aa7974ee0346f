"""The grid that audio and labels lie on: sample rate, hop between label frames, channels."""

import dataclasses

import numpy as np
from jaxtyping import Float64


@dataclasses.dataclass(frozen=True)
class Grid:
    """At which rate and in how many channels audio comes, and how far its label frames are apart.

    Frame k is centred at sample k * hop_samples. ValueError where a number is not 1 or more.
    """

    sample_rate_hz: int
    hop_samples: int
    channels: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; expected a whole number from 1 on")

    def seconds(self, samples: int) -> float:
        """How long so many samples last."""
        return samples / self.sample_rate_hz

    def frame_count(self, samples: int) -> int:
        """Number of label frames of so many samples: one for each whole hop."""
        return samples // self.hop_samples

    def frames_over(self, seconds: float | np.floating) -> int:
        """The fewest frames whose hops last for so many seconds or longer."""
        return int(np.ceil(seconds * self.sample_rate_hz / self.hop_samples))

    def frame_times_s(self, frames: int) -> Float64[np.ndarray, " frame"]:
        """The centres of the first frames, in seconds: k * hop / rate."""
        return np.arange(frames) * self.hop_samples / self.sample_rate_hz
