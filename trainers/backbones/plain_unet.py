"""The plain U-Net of the paper's experiments, in 2D or 3D."""

from __future__ import annotations

import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunet_nacl_trainers.backbones.planned import Planned, check_patch_size

__all__ = ["PlainUNet"]


class PlainUNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) without normalisation and deep supervision, as in the paper's code.

    A stage is two convolutions of size 3 with bias, each followed by ReLU. Stages are joined by max pooling on the way
    down; on the way up by nearest-neighbour upsampling and concatenation; a convolution of size 1 makes the classes.
    With 32, 64, 128, 256, 512 features and kernels of 3 x 3 it has the parameters of the paper's network, whatever the
    strides. Weights are initialised after He et al. (2015), biases with 0, since no normalisation makes up for depth.

    Args:
        planned: Features, kernel sizes and strides of the stages.
        num_inputs: Channels.
        num_outputs: Classes, or regions.

    Raises:
        UserError: The patch size is no multiple of the strides' product.
    """

    class_layer = "classes"

    def __init__(self, planned: Planned, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        check_patch_size("unet", planned.patch_size, planned.reduction)
        three_d = planned.num_axes == 3
        self._convolution = nn.Conv3d if three_d else nn.Conv2d
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.pool, self.upsample = nn.ModuleList(), nn.ModuleList()
        before = num_inputs
        for features, kernel, stride in zip(planned.features, planned.kernel_sizes, planned.strides):
            self.pool.append((nn.MaxPool3d if three_d else nn.MaxPool2d)(stride))
            self.upsample.append(nn.Upsample(scale_factor=tuple(map(float, stride))))
            self.down.append(self._stage(before, features, kernel))
            before = features
        for fine, coarse, kernel in zip(planned.features, planned.features[1:], planned.kernel_sizes):
            self.up.append(self._stage(fine + coarse, fine, kernel))
        self.classes = self._convolution(planned.features[0], num_outputs, 1)
        self.apply(InitWeights_He(0))

    def _stage(self, inputs: int, features: int, kernel: tuple[int, ...]) -> nn.Module:
        layers: list[nn.Module] = []
        for channels in (inputs, features):
            padding = tuple(size // 2 for size in kernel)
            layers += [self._convolution(channels, features, kernel, padding=padding), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, num_inputs, *spatial) -> logits (B, num_outputs, *spatial)."""
        skips = []
        for pool, stage in zip(self.pool, self.down):
            x = stage(pool(x))
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](torch.cat([self.upsample[level + 1](x), skips[level]], 1))
        return self.classes(x)
