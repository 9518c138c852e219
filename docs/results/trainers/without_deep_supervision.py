"""A trainer of the hippocampus study, NACL at full resolution only, in a file of one's own.

nnU-Net finds it by `export nnUNet_extTrainer=.../docs/results/trainers`. What a name's tokens would say stands in
`variant`.
"""

import torch

from nnunet_nacl.registration.grammar import parse
from nnunet_nacl_trainers import nnUNetTrainerNACL


class nnUNetTrainerNACLWithoutDeepSupervision_40epochs_50iters_adam(nnUNetTrainerNACL):
    """NACL, 2,000 iterations of Adam, no deep supervision."""

    variant = parse("nnUNetTrainerNACL_plainstart_40epochs_50iters_adam")

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False
