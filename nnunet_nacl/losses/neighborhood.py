"""The prior tau of NACL and SVLS: the share of each class in the neighbourhood of a voxel.

``tau_k(v) = sum_u w(u - v) [y(u) = k] / sum_u w(u - v)`` over the voxels u around v, v included
(Murugesan et al. 2025, eq. 8 for the mean; the kernel of SVLS is eq. 3).

But for the weight of its centre every kernel is a product of one-dimensional kernels. So sums run
along one axis after the other, and the centre is added last.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, prod
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.label_space import signed
from nnunet_nacl.losses.checks import check_choice

PRIORS = ("mean", "gaussian", "svls")
PADDINGS = ("valid", "background", "zeros", "replicate")


@dataclass(frozen=True)
class Neighborhood:
    """Size, weights and border rule of a neighbourhood.

    Args:
        kernel_size: Odd number of voxels along every axis, or one odd number per axis; 1 leaves an
            axis out.
        prior: ``mean`` weighs all voxels alike; ``gaussian`` by exp(-d^2 / 2 sigma^2), d in voxels;
            ``svls`` is the gaussian whose centre weighs as much as all its neighbours together
            (Islam and Glocker 2021).
        sigma: Width of ``gaussian`` and ``svls`` in voxels.
        padding: What lies outside of the image: ``valid`` nothing (shares of the voxels inside),
            ``background`` class 0 (the NACL authors' code; for regions, which have no class 0,
            voxels of no region), ``zeros`` voxels of no class (MONAI), ``replicate`` the nearest
            voxel inside (SVLS's code).

    Raises:
        ValueError: A size is even or not positive, sigma is not positive, or a name is unknown.
    """

    kernel_size: int | tuple[int, ...] = 3
    prior: str = "mean"
    sigma: float = 1.0
    padding: str = "valid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel_size", _check_kernel_size(self.kernel_size))
        check_choice("prior", self.prior, PRIORS)
        check_choice("padding", self.padding, PADDINGS)
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma must be a positive number of voxels, got {self.sigma!r}.")

    def sizes(self, num_axes: int) -> tuple[int, ...]:
        """Kernel size along each axis; ValueError if sizes were given for another number of
        axes."""
        if isinstance(self.kernel_size, int):
            return (self.kernel_size,) * num_axes
        if len(self.kernel_size) != num_axes:
            raise ValueError(
                f"kernel_size {self.kernel_size} names {len(self.kernel_size)} axes, but images"
                f" have {num_axes}."
            )
        return self.kernel_size

    def axis_kernels(self, num_axes: int) -> list[list[float]]:
        """The one-dimensional kernel of each axis, with a weight of 1 in its centre."""
        return [self._axis_kernel(size) for size in self.sizes(num_axes)]

    def _axis_kernel(self, size: int) -> list[float]:
        if self.prior == "mean":
            return [1] * size
        centre = size // 2
        return [exp(-((i - centre) ** 2) / (2 * self.sigma**2)) for i in range(size)]

    def neighbor_weight(self, num_axes: int) -> float:
        """Weight of all neighbours together, without the voxel itself."""
        # It is the product over axes of (1 + neighbours along the axis), minus 1. Built up axis by
        # axis it needs no difference, in which the weight of light neighbours would be lost.
        neighbors = 0.0
        for kernel in self.axis_kernels(num_axes):
            one_side = kernel[: len(kernel) // 2]
            neighbors += 2 * sum(one_side) * (1 + neighbors)
        return neighbors

    def centre_weight(self, num_axes: int) -> float:
        """Weight of the voxel itself: 1; for ``svls`` that of all its neighbours together."""
        if self.prior == "svls":
            neighbors = self.neighbor_weight(num_axes)
            if neighbors > 1e-30:  # else it has none, or so light ones that float32 would lose them
                return neighbors
        return 1  # a whole number, since ``compute_shares`` may count in bytes

    def full_weight(self, num_axes: int) -> float:
        """Sum of all weights of the kernel."""
        return self.neighbor_weight(num_axes) + self.centre_weight(num_axes)

    def weighted_sum(self, values: Tensor, num_axes: int) -> Tensor:
        """Weighted sum of the values over the neighbourhood of each voxel, in their type.

        Outside of the image values are 0, but for ``replicate``.

        Args:
            values: (..., *spatial).
            num_axes: Number of the last axes that are spatial.
        """
        # Neighbours are summed apart from the centre: beside it the light ones of a small sigma
        # would be lost in float32.
        neighbors: Tensor | None = None
        for axis, kernel in enumerate(self.axis_kernels(num_axes), start=-num_axes):
            if len(kernel) == 1:
                continue
            if neighbors is None:
                neighbors = self._sum_beside(values, kernel, axis)
            else:
                # On both sides along this axis lie whole rows along the axes before.
                neighbors.add_(self._sum_beside(neighbors + values, kernel, axis))
        if neighbors is None:
            return values
        return neighbors.add_(values, alpha=self.centre_weight(num_axes))

    def _sum_beside(self, values: Tensor, kernel: list[float], axis: int) -> Tensor:
        """Weighted sum of each voxel's neighbours along one (negative) axis, itself left out."""
        length = values.shape[axis]
        reach = len(kernel) // 2
        padded = self._pad(values, reach, axis)
        total = torch.zeros_like(values)
        for i, weight in enumerate(kernel):
            if i != reach:
                total.add_(padded.narrow(axis, i, length), alpha=weight)
        return total

    def _pad(self, values: Tensor, reach: int, axis: int) -> Tensor:
        """The values with so many voxels more at both ends of an axis."""
        nothing_to_repeat = values.shape[axis] == 0
        if self.padding != "replicate" or nothing_to_repeat:
            axes_behind = -axis - 1
            return F.pad(values, (0, 0) * axes_behind + (reach, reach))
        first = values.narrow(axis, 0, 1)
        last = values.narrow(axis, values.shape[axis] - 1, 1)
        return torch.cat([first] * reach + [values] + [last] * reach, axis)

    def outside_weight(self, spatial: tuple[int, ...], like: Tensor) -> Tensor:
        """Weight that lies outside of an image of this size, (*spatial); exactly 0 in its interior.

        Type and device are those of ``like``.
        """
        num_axes = len(spatial)
        full_weight = self.full_weight(num_axes)
        everywhere = torch.ones(spatial, dtype=like.dtype, device=like.device)
        inside = self.weighted_sum(everywhere, num_axes)
        outside = full_weight - inside
        return torch.where(outside > 1e-6 * full_weight, outside, 0)

    def total_weight(self, spatial: tuple[int, ...], valid: Tensor | None, like: Tensor) -> Tensor:
        """The denominator of tau: the weight of all that counts in the neighbourhood of each voxel.

        Where a neighbourhood holds ignored voxels only, so that its centre is ignored, it is 1.

        Args:
            spatial: Size of the image.
            valid: Boolean (B, *spatial), False where a voxel is ignored; None if none is.
            like: A tensor of the wanted type and device.

        Returns:
            (*spatial), or (B, *spatial) with ``valid``.
        """
        if valid is None:
            counted = torch.ones(spatial, dtype=like.dtype, device=like.device)
        else:
            counted = valid.to(like.dtype)
        total = self.weighted_sum(counted, len(spatial))
        if self.padding in ("zeros", "background"):
            total = total + self.outside_weight(spatial, like)
        return torch.where(total > 0, total, 1)


def neighborhood_proportions(
    target: Tensor,
    num_classes: int | None,
    *,
    kernel_size: int | tuple[int, ...] = 3,
    prior: str = "mean",
    sigma: float = 1.0,
    padding: str = "valid",
    valid: Tensor | None = None,
) -> Tensor:
    """Share of each class, or region, in the neighbourhood of each voxel, tau.

    It is eq. 8 of Murugesan et al. 2025, for other priors with other weights. ``kernel_size``,
    ``prior``, ``sigma`` and ``padding`` are those of :class:`Neighborhood`.

    Args:
        target: Label map, (B, *spatial) or (B, 1, *spatial), of values from 0 to ``num_classes`` -
            1; with four or more axes a second one of length 1 is the channel. For regions, which
            may overlap, their binary maps, (B, R, *spatial).
        num_classes: K; None for regions.
        valid: Boolean, (B, *spatial) or (B, 1, *spatial); ignored voxels (False) are part of no
            neighbourhood.

    Returns:
        (B, K, *spatial) or (B, R, *spatial) float32. The sum over classes is 1, except under
            ``zeros``, where the share that lies outside is missing, and where a whole neighbourhood
            is ignored: there it is 0.

    Raises:
        ValueError: Bad kernel size, prior, sigma or padding, or ``valid`` of another shape.

    Examples:
        >>> import torch
        >>> labels = torch.tensor([[0, 0, 1, 1]])  # a row of four voxels, (1, 4)
        >>> neighborhood_proportions(labels, num_classes=2)[0, 1]  # of class 1
        tensor([0.0000, 0.3333, 0.6667, 1.0000])
    """
    neighborhood = Neighborhood(kernel_size, prior, sigma, padding)
    if num_classes is not None and target.ndim >= 4 and target.shape[1] == 1:
        target = target[:, 0]
    if valid is not None:
        batch_size = target.shape[0]
        spatial = target.shape[1:] if num_classes is not None else target.shape[2:]
        without_channel = (batch_size, *spatial)
        with_channel = (batch_size, 1, *spatial)
        if tuple(valid.shape) not in (without_channel, with_channel):
            raise ValueError(
                f"valid must have shape {without_channel} or {with_channel}, got"
                f" {tuple(valid.shape)}."
            )
        valid = valid.reshape(without_channel).bool()
    return compute_shares(signed(target), num_classes, neighborhood, valid, torch.float32)


def compute_shares(
    labels: Tensor,
    num_classes: int | None,
    neighborhood: Neighborhood,
    valid: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """tau of a label map, (B, K, *spatial), or of the maps of regions, (B, R, *spatial).

    Args:
        labels: Label map (B, *spatial), or binary maps (B, R, *spatial).
        num_classes: K for a label map, None for regions.
        neighborhood: Size, weights and border rule.
        valid: Boolean (B, *spatial), False where a voxel is ignored; None if none is.
        dtype: Floating type of the result.
    """
    membership = _find_membership(labels, num_classes)
    if valid is not None:
        membership = membership & valid[:, None]
    spatial = tuple(membership.shape[2:])
    num_neighbors = prod(neighborhood.sizes(len(spatial)))
    counts_fit_in_bytes = neighborhood.prior == "mean" and num_neighbors <= 255
    summed = membership.to(torch.uint8 if counts_fit_in_bytes else dtype)
    weights = neighborhood.weighted_sum(summed, len(spatial)).to(dtype)
    if neighborhood.padding == "background" and num_classes is not None:
        weights[:, 0] += neighborhood.outside_weight(spatial, like=weights)
    total = neighborhood.total_weight(spatial, valid, like=weights)
    return weights / (total if valid is None else total[:, None])


def _find_membership(labels: Tensor, num_classes: int | None) -> Tensor:
    """Whether a voxel is of each class, (B, K, *spatial), or in each region, (B, R, *spatial)."""
    if num_classes is None:
        return labels != 0
    classes = torch.arange(num_classes, device=labels.device, dtype=labels.dtype)
    num_axes = labels.ndim - 1
    return labels[:, None] == classes.reshape(num_classes, *(1,) * num_axes)


def _check_kernel_size(kernel_size: int | tuple[int, ...]) -> int | tuple[int, ...]:
    """The sizes as Python's integers (NumPy's are taken, too); ValueError unless each has a
    centre."""
    sizes = kernel_size if isinstance(kernel_size, (tuple, list)) else [kernel_size]
    if not sizes or not all(_has_centre(size) for size in sizes):
        raise ValueError(
            "kernel_size must be an odd positive integer, or one per axis, so that a centre"
            f" exists; got {kernel_size!r}."
        )
    if isinstance(kernel_size, (tuple, list)):
        return tuple(int(size) for size in kernel_size)
    return int(kernel_size)


def _has_centre(size: object) -> bool:
    if not isinstance(size, Integral) or isinstance(size, bool):
        return False
    return int(size) >= 1 and int(size) % 2 == 1
