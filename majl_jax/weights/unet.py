"""The U-Net of Jansson et al. from the port Xiao-Ming/UNet-VocalSeparation-Chainer, whose file
`unet.model` is an .npz.
"""

from collections.abc import Sequence

import jax
import numpy as np

from majl_jax.models.unet import PUBLISHED_CHANNELS, UNet
from majl_jax.weights.filling import Table, Tensors, Variables, fill, flat, same


def convert_unet(tensors: Tensors, *, channels: Sequence[int] = PUBLISHED_CHANNELS) -> Variables:
    """Variables of `UNet(channels, kernel_size=4, norm_epsilon=2e-5)`; its kernels lie on (time,
    frequency), the port's transposed.
    """
    # Counts the batches that the statistics were taken from, which evaluation does not need.
    tensors = {key: value for key, value in tensors.items() if not key.endswith("/N")}
    return fill(_shapes(tuple(channels)), _table(len(channels)), tensors)


def _shapes(channels: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    model, size = UNet(channels, kernel_size=4), 2 ** len(channels)
    level = jax.ShapeDtypeStruct((1, size, size), np.float32)
    variables = jax.eval_shape(
        lambda level: model.init(jax.random.key(0), level, method="mask"), level
    )
    return {path: leaf.shape for path, leaf in flat(variables).items()}


def _table(depth: int) -> Table:
    def down(array: np.ndarray) -> np.ndarray:  # (out, in, frequency, time)
        return array.transpose(3, 2, 1, 0)

    def up(
        array: np.ndarray,
    ) -> np.ndarray:  # (in, out, frequency, time), of the transposed convolution
        return array[:, :, ::-1, ::-1].transpose(3, 2, 0, 1)

    table: Table = {}
    for ours, conv, norm, change in (
        ("down", "conv", "norm", down),
        ("up", "deconv", "denorm", up),
    ):
        for i in range(1, depth + 1):
            table[f"params/{ours}{i}/kernel"] = (f"{conv}{i}/W", change)
            table[f"params/{ours}{i}/bias"] = (f"{conv}{i}/b", same)
            if (ours, i) == ("up", depth):
                continue  # the mask is not normalised
            table[f"params/{ours}{i}_norm/scale"] = (f"{norm}{i}/gamma", same)
            table[f"params/{ours}{i}_norm/bias"] = (f"{norm}{i}/beta", same)
            table[f"batch_stats/{ours}{i}_norm/mean"] = (f"{norm}{i}/avg_mean", same)
            table[f"batch_stats/{ours}{i}_norm/var"] = (f"{norm}{i}/avg_var", same)
    return table
