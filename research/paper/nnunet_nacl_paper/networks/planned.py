"""What a network takes from nnU-Net's plans, and which patches it can take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_nacl_paper.files import InputError


@dataclass(frozen=True)
class Planned:
    """One configuration of the plans.

    Attributes:
        features: Channels of each stage, the first at full resolution.
        kernel_sizes, strides: Of each stage, by axis; stage 0 has strides of 1.
        patch_size: Voxels by axis.
    """

    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]

    @property
    def num_axes(self) -> int:
        """2 or 3."""
        return len(self.patch_size)

    @property
    def reduction(self) -> tuple[int, ...]:
        """By how much the last stage is smaller than the first, by axis."""
        return tuple(math.prod(steps) for steps in zip(*self.strides))


def read_plans(configuration: Any) -> Planned:
    """Reads one of nnU-Net's ConfigurationManagers.

    Raises:
        InputError: The configuration's network has no stages with features, kernels and strides of
            their own.
    """
    settings = configuration.network_arch_init_kwargs
    patch_size = tuple(configuration.patch_size)

    def by_axis(value: int | Sequence[int]) -> tuple[int, ...]:
        if isinstance(value, int):
            return (value,) * len(patch_size)
        return tuple(value)

    try:
        features = tuple(int(count) for count in settings["features_per_stage"])
        kernels = tuple(by_axis(kernel) for kernel in settings["kernel_sizes"])
        strides = tuple(by_axis(stride) for stride in settings["strides"])
    except (KeyError, TypeError):
        raise InputError(
            "the plans' network has no features_per_stage, kernel_sizes and strides by stage, from"
            " which another network could take them; use plans of a U-Net, such as nnUNetPlans."
        ) from None
    return Planned(features, kernels, strides, patch_size)


def check_patch_size(
    network: str, patch_size: Sequence[int], multiples: Sequence[int], *, smallest: int = 1
) -> None:
    """Refuse patches that the network would return in another size, or not at all.

    Args:
        network: For the error.
        patch_size: Of the plans.
        multiples: What each axis must be a multiple of.
        smallest: Voxels that must be left where each axis is divided by its multiple.

    Raises:
        InputError: It names the nearest size that the network takes.
    """
    counts = [
        max(1, math.floor(size / multiple + 0.5)) for size, multiple in zip(patch_size, multiples)
    ]
    while math.prod(counts) < smallest:
        counts = [count + 1 for count in counts]
    nearest = [count * multiple for count, multiple in zip(counts, multiples)]
    if nearest != list(patch_size):
        raise InputError(
            f"{network} takes patches of multiples of {_shown(multiples)} voxels, the plans have"
            f" {_shown(patch_size)}: set patch_size to {nearest}, the nearest, in nnUNetPlans.json."
        )


def _shown(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
