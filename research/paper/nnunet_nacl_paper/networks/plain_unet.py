"""The plain U-Net of the paper's experiments, in 2D or 3D."""

from __future__ import annotations

from typing import Any

import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.nn import functional

from nnunet_nacl_paper.networks.planned import Planned, check_patch_size


class PlainUNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) without normalisation and deep supervision, as in the paper's
    code.

    A stage is two convolutions of size 3 with bias, each followed by ReLU. Stages are joined by max
    pooling on the way down; on the way up by nearest-neighbour upsampling and concatenation; a
    convolution of size 1 makes the classes. With 32, 64, 128, 256, 512 features and kernels of 3 x
    3 it has the parameters of the paper's network, whatever the strides. Weights are initialised
    after He et al. (2015), biases with 0, since no normalisation makes up for depth.

    Args:
        planned: Features, kernel sizes and strides of the stages.
        num_inputs: Channels.
        num_outputs: Classes, or regions.

    Raises:
        InputError: The patch size is no multiple of the strides' product.
    """

    class_layer = "classes"

    def __init__(self, planned: Planned, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        check_patch_size("unet", planned.patch_size, planned.reduction)
        three_d = planned.num_axes == 3
        self._convolution: Any = nn.Conv3d if three_d else nn.Conv2d
        self._pool: Any = functional.max_pool3d if three_d else functional.max_pool2d
        self._strides = planned.strides
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        features = planned.features
        kernels = planned.kernel_sizes
        for before, after, kernel in zip((num_inputs, *features), features, kernels):
            self.down.append(self._stage(before, after, kernel))
        for fine, coarse, kernel in zip(features, features[1:], kernels):
            self.up.append(self._stage(fine + coarse, fine, kernel))
        self.classes = self._convolution(features[0], num_outputs, 1)
        self.apply(InitWeights_He(0))

    def _stage(self, inputs: int, features: int, kernel: tuple[int, ...]) -> nn.Module:
        layers: list[nn.Module] = []
        for channels in (inputs, features):
            padding = tuple(size // 2 for size in kernel)
            layers += [
                self._convolution(channels, features, kernel, padding=padding),
                nn.ReLU(inplace=True),
            ]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_inputs, *spatial) -> logits (B, num_outputs, *spatial)."""
        skips = []
        for stride, stage in zip(self._strides, self.down):
            x = stage(self._pool(x, stride))
            skips.append(x)
        skips.pop()
        for stage in reversed(self.up):
            skip = skips.pop()
            x = stage(torch.cat([functional.interpolate(x, skip.shape[2:]), skip], 1))
        return self.classes(x)
