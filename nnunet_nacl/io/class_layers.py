"""Which layers of a network make its class channels. Knows nnU-Net's networks."""

from __future__ import annotations

from torch import nn

from nnunet_nacl.errors import UserError

WITHOUT_CHECKPOINTS = "Leave --write_checkpoints out: the map of `nnunet_nacl calibrate` works for it all the same"


def class_layers(network: nn.Module) -> tuple[list[str], int]:
    """The layers that make class channels, one for each resolution that is trained.

    Networks beside nnU-Net's say so themselves: ``class_layer`` is the name of a convolution with nothing after it.

    Args:
        network: The network itself, not what torch.compile or DDP wrap it in.

    Returns:
        Their names, the last that of the full resolution, which alone makes predictions; and the axis of their weights
        that the classes are on.

    Raises:
        UserError: The architecture is none of those whose last layers are known to be it.
    """
    from dynamic_network_architectures.architectures.primus import Primus
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    if isinstance(network, (PlainConvUNet, ResidualEncoderUNet)):
        return [f"decoder.seg_layers.{index}" for index in range(len(network.decoder.seg_layers))], 0
    if isinstance(getattr(network, "class_layer", None), str):
        return [str(network.class_layer)], 0
    if isinstance(network, Primus):  # ends in a transposed convolution
        return [f"up_projection.decode.{len(network.up_projection.decode) - 1}"], 1
    raise UserError(
        f"the network {type(network).__name__} is none of PlainConvUNet, ResidualEncoderUNet and Primus, and has no "
        f"class_layer: which layer makes its class channels is not known. {WITHOUT_CHECKPOINTS}."
    )
