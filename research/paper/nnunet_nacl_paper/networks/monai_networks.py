"""MONAI's attention U-Net and U-Net++, with the plans' features."""

from __future__ import annotations

from monai.networks.nets import AttentionUnet, BasicUNetPlusPlus
from torch import Tensor

from nnunet_nacl_paper.networks.planned import Planned, check_patch_size

_LEVELS = 5  # of MONAI's U-Net++


class PlannedAttentionUNet(AttentionUnet):
    """Attention U-Net (Oktay et al. 2018): features and strides of the plans, kernels of 3, batch
    normalisation.

    Args:
        planned: Features and strides of the stages.
        num_inputs: Channels.
        num_outputs: Classes, or regions.

    Raises:
        InputError: The patch size is no multiple of the strides' product.
    """

    class_layer = "model.2.conv"

    def __init__(self, planned: Planned, num_inputs: int, num_outputs: int) -> None:
        check_patch_size("attunet", planned.patch_size, planned.reduction)
        strides = [_as_monai_takes_it(stride) for stride in planned.strides[1:]]
        super().__init__(
            planned.num_axes,
            num_inputs,
            num_outputs,
            planned.features,
            strides,  # type: ignore[arg-type]
        )


def _as_monai_takes_it(stride: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number for all axes where they agree."""
    return stride[0] if len(set(stride)) == 1 else stride


class PlannedUNetPlusPlus(BasicUNetPlusPlus):
    """U-Net++ (Zhou et al. 2018) of five levels, each half as large as the one before, with
    instance normalisation.

    The levels have the features of the plans' first five stages (the last stage's again, where
    there are fewer), the last node those of the first level. The heads of the nodes before the last
    are there but not trained, since there is no deep supervision.

    Args:
        planned: Features of the stages.
        num_inputs: Channels.
        num_outputs: Classes, or regions.

    Raises:
        InputError: The patch size is no multiple of 16, or a single voxel would be left at the
            bottom, of which instance normalisation leaves nothing.
    """

    class_layer = "final_conv_0_4"

    def __init__(self, planned: Planned, num_inputs: int, num_outputs: int) -> None:
        multiples = [2 ** (_LEVELS - 1)] * planned.num_axes
        check_patch_size("unetpp", planned.patch_size, multiples, smallest=2)
        last = planned.features[-1]
        features = [*planned.features, *[last] * _LEVELS][:_LEVELS]
        super().__init__(planned.num_axes, num_inputs, num_outputs, (*features, features[0]))
        for head in (self.final_conv_0_1, self.final_conv_0_2, self.final_conv_0_3):
            head.requires_grad_(False)  # DDP waits for gradients of whatever needs one

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_inputs, *spatial) -> logits (B, num_outputs, *spatial)."""
        return super().forward(x)[-1]
