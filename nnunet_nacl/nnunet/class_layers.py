"""The layers of a network that make class channels, whose biases begin a training and carry a
decision."""

from __future__ import annotations

from torch import nn


def class_layers(network: nn.Module) -> list[str]:
    """Names of the layers that make class channels, one for each resolution that is trained, the
    finest last; none where not known.

    Networks beside nnU-Net's say it themselves: ``class_layer`` is the name of a convolution with
    nothing after it.
    """
    from dynamic_network_architectures.architectures.primus import Primus
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    if isinstance(network, (PlainConvUNet, ResidualEncoderUNet)):
        return [f"decoder.seg_layers.{index}" for index in range(len(network.decoder.seg_layers))]
    class_layer = getattr(network, "class_layer", None)
    if isinstance(class_layer, str):
        return [class_layer]
    if isinstance(network, Primus):  # ends in a transposed convolution
        return [f"up_projection.decode.{len(network.up_projection.decode) - 1}"]
    return []
