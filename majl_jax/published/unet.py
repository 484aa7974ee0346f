"""The U-Net of Jansson et al. from the Chainer port Xiao-Ming/UNet-VocalSeparation-Chainer."""

from majl_jax.published.filling import Tensors, Variables


def convert_unet(tensors: Tensors) -> Variables:
    raise NotImplementedError
