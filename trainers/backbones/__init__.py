"""The networks that a trainer's name can ask for instead of the plans': one file each, and here the trainer's part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from nnunet_nacl.errors import UserError
from nnunet_nacl_trainers.backbones.planned import read_plans
from nnunet_nacl_trainers.base import CalibrationTrainer

__all__ = ["WEIGHTS_VARIABLE", "BackboneTrainer"]

WEIGHTS_VARIABLE = "nnUNet_transunet_weights"
"""Environment variable: file of ImageNet weights with which a training of TransUNet begins."""


class BackboneTrainer(CalibrationTrainer):
    """A trainer whose ``variant`` names a network. Without deep supervision, since that belongs to nnU-Net's decoders.

    Classes with a network in their name have it before their method's trainer, so that nnU-Net's own method builds the
    network of all others.
    """

    @classmethod
    def build_network_architecture(  # nnU-Net's is static, and called in the same way
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """The network that the trainer's name says, for training and prediction.

        Raises:
            UserError: It cannot take the plans' patches, or the package that it comes from is not installed.
        """
        network = cls.variant.network
        planned = read_plans(configuration_manager)
        sizes = num_input_channels, num_output_channels
        if network == "unet":
            from nnunet_nacl_trainers.backbones.plain_unet import PlainUNet

            return PlainUNet(planned, *sizes)
        if network == "transunet":
            from nnunet_nacl_trainers.backbones.transunet import TransUNet

            return TransUNet(planned, *sizes)
        try:
            from nnunet_nacl_trainers.backbones.monai_networks import PlannedAttentionUNet, PlannedUNetPlusPlus
        except ImportError as error:
            raise UserError(
                f"the network {network!r} is MONAI's, which is not installed ({error}): pip install "
                "'nnunet_nacl[backbones]'"
            ) from None
        return (PlannedAttentionUNet if network == "attunet" else PlannedUNetPlusPlus)(planned, *sizes)

    def initialize(self) -> None:
        """nnU-Net's, with ImageNet weights for TransUNet where their file is given; a training goes on without them."""
        super().initialize()
        path = os.environ.get(WEIGHTS_VARIABLE)
        if self.variant.network == "transunet" and path:
            from nnunet_nacl_trainers.backbones.transunet import load_imagenet_weights

            load_imagenet_weights(self.bare_network(), Path(path))
            self.print_to_log_file(f"TransUNet begins with the weights of {path}.")

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """There is none to set."""
