"""The paper's networks as trainers of nnU-Net: nnunet_nacl's with a network in their name.

pyproject.toml registers those of the paper's experiments as entry points, as any package may, so
nnU-Net finds them by name. ``nnUNetTrainerNACL_unet_plainstart_100epochs_adam_noda`` is
``nnUNetTrainerNACL_plainstart_100epochs_adam_noda`` with the plain U-Net.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import torch
from torch import nn

import nnunet_nacl_trainers
from nnunet_nacl_paper.networks.planned import read_plans
from nnunet_nacl_trainers.base import CalibrationTrainer

WEIGHTS_VARIABLE = "nnUNet_transunet_weights"
"""Environment variable: file of ImageNet weights with which a training of TransUNet begins."""

NETWORKS = {
    "unet": "nnunet_nacl_paper.networks.plain_unet:PlainUNet",
    "attunet": "nnunet_nacl_paper.networks.monai_networks:PlannedAttentionUNet",
    "unetpp": "nnunet_nacl_paper.networks.monai_networks:PlannedUNetPlusPlus",
    "transunet": "nnunet_nacl_paper.networks.transunet:TransUNet",
}
_NAME = re.compile(rf"(nnUNetTrainer\w*?)_({'|'.join(NETWORKS)})((?:_\w+)?)")


class NetworkTrainer(CalibrationTrainer):
    """A trainer with the network ``network_name``, without nnU-Net's deep supervision."""

    network_name: ClassVar[str]

    def __init__(  # nnU-Net reads the names of a constructor's arguments, so they are its own
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False

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
            InputError: It cannot take the plans' patches.
        """
        make = resolve_name(NETWORKS[cls.network_name])
        return make(read_plans(configuration_manager), num_input_channels, num_output_channels)

    def initialize(self) -> None:
        """nnU-Net's; TransUNet begins with ImageNet weights where the variable names their file."""
        super().initialize()
        path = os.environ.get(WEIGHTS_VARIABLE)
        if self.network_name == "transunet" and path:
            from nnunet_nacl_paper.networks.transunet import load_imagenet_weights

            load_imagenet_weights(self.bare_network(), Path(path))
            self.print_to_log_file(f"TransUNet begins with the weights of {path}.")

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """There is none to set."""


def __getattr__(name: str) -> type:
    """The trainer class of a name, always the same one."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    method, network, tokens = match.groups()
    base = getattr(nnunet_nacl_trainers, f"{method}{tokens}")
    doc = f"{base.__doc__} The network is {network}."
    settings = {"__module__": __name__, "__doc__": doc, "network_name": network}
    trainer = type(name, (NetworkTrainer, base), settings)
    globals()[name] = trainer
    return trainer
