"""The prior tau of NACL and SVLS: the share of each class in the neighbourhood of a voxel.

``tau_k(v) = sum_u w(u - v) [y(u) = k] / sum_u w(u - v)`` over the k x k (x k) voxels u around v, v included
(Murugesan et al. 2025, eq. 8 for the mean; the SVLS kernel is eq. 3). Every kernel here is a product of
one-dimensional kernels but for the weight of its centre, so sums run along one axis after the other.
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


@dataclass(frozen=True)
class Neighborhood:
    """Size, weights and border rule of a neighbourhood.

    Args:
        kernel_size: Odd number of voxels along every axis, or one odd number per axis; 1 leaves an axis out.
        prior: ``mean`` weighs all voxels alike; ``gaussian`` by exp(-d^2 / 2 sigma^2), d in voxels; ``svls`` is the
            gaussian whose centre weighs as much as all its neighbours together (Islam & Glocker 2021).
        sigma: Width of ``gaussian`` and ``svls`` in voxels.
        padding: Beyond the border: ``valid`` nothing (shares of the voxels inside), ``background`` class 0 (the NACL
            authors' code), ``zeros`` voxels of no class (MONAI), ``replicate`` the nearest voxel inside (SVLS's code).

    Raises:
        ValueError: A size is even or not positive, sigma is not positive, or a name is unknown.
    """

    kernel_size: int | tuple[int, ...] = 3
    prior: str = "mean"
    sigma: float = 1.0
    padding: str = "valid"

    def __post_init__(self) -> None:
        one_per_axis = isinstance(self.kernel_size, (tuple, list))
        sizes: tuple[int, ...] = tuple(self.kernel_size) if one_per_axis else (self.kernel_size,)  # type: ignore
        if not sizes or any(
            not isinstance(size, Integral) or isinstance(size, bool) or size < 1 or size % 2 == 0 for size in sizes
        ):
            raise ValueError(
                f"kernel_size must be an odd positive integer, or one per axis, so that a centre exists; "
                f"got {self.kernel_size!r}."
            )
        sizes = tuple(int(size) for size in sizes)  # numpy's integers too
        object.__setattr__(self, "kernel_size", sizes if one_per_axis else sizes[0])
        check_choice("prior", self.prior, ("mean", "gaussian", "svls"))
        check_choice("padding", self.padding, ("valid", "background", "zeros", "replicate"))
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma must be a positive number of voxels, got {self.sigma!r}.")

    def sizes(self, spatial_dims: int) -> tuple[int, ...]:
        """Kernel size per axis; ValueError if sizes were given for another number of axes."""
        if isinstance(self.kernel_size, int):
            return (self.kernel_size,) * spatial_dims
        if len(self.kernel_size) != spatial_dims:
            raise ValueError(
                f"kernel_size {self.kernel_size} names {len(self.kernel_size)} axes, but images have {spatial_dims}."
            )
        return self.kernel_size

    def axis_weights(self, spatial_dims: int) -> list[list[float]]:
        """The one-dimensional kernels, one list per axis."""
        sizes = self.sizes(spatial_dims)
        if self.prior == "mean":
            return [[1] * size for size in sizes]
        return [[exp(-((i - size // 2) ** 2) / (2 * self.sigma**2)) for i in range(size)] for size in sizes]

    def centre_weight(self, spatial_dims: int) -> float:
        """Weight of the voxel itself: 1, or for ``svls`` that of all its neighbours together if it has any."""
        neighbors = self._neighbor_weight(spatial_dims)
        return neighbors if self.prior == "svls" and neighbors > 1e-30 else 1  # whole, for sums of integers

    def _neighbor_weight(self, spatial_dims: int) -> float:
        neighbors = 0.0
        for weights in self.axis_weights(spatial_dims):
            neighbors += 2 * sum(weights[: len(weights) // 2]) * (1 + neighbors)
        return neighbors

    def weighted_sum(self, x: Tensor, spatial_dims: int) -> Tensor:
        """Sum of ``x`` over the neighbourhood along the last axes, in its dtype; 0 outside, but for ``replicate``."""
        replicate = self.padding == "replicate"
        # Neighbours are summed apart from the centre: with a small sigma they would be lost beside it in float32.
        neighbors: Tensor | None = None
        for axis, weights in enumerate(self.axis_weights(spatial_dims), start=-spatial_dims):
            if len(weights) > 1:
                so_far = x if neighbors is None else neighbors + x
                sides = _sum_sides(so_far, weights, axis, replicate)
                neighbors = sides if neighbors is None else neighbors.add_(sides)
        if neighbors is None:
            return x
        return neighbors.add_(x, alpha=self.centre_weight(spatial_dims))

    def full_weight(self, spatial_dims: int) -> float:
        """Sum of all kernel weights."""
        return self._neighbor_weight(spatial_dims) + self.centre_weight(spatial_dims)

    def outside_weight(self, spatial: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Kernel weight that lies outside of an image of this size, (*spatial); exactly 0 in its interior."""
        dims = len(spatial)
        outside = self.full_weight(dims) - self.weighted_sum(torch.ones(spatial, device=device, dtype=dtype), dims)
        return torch.where(outside > 1e-6 * self.full_weight(dims), outside, 0)

    def total_weight(
        self, spatial: tuple[int, ...], valid: Tensor | None, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """The denominator of tau, (*spatial), or (B, *spatial) with a mask: ignored voxels never count in it.

        Where a neighbourhood holds ignored voxels only (its centre is then ignored too) the value is 1.
        """
        counted = torch.ones(spatial, device=device, dtype=dtype) if valid is None else valid.to(dtype)
        total = self.weighted_sum(counted, len(spatial))
        if self.padding in ("zeros", "background"):
            total = total + self.outside_weight(spatial, device, dtype)
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
    """Share of each class, or region, in the neighbourhood of each voxel, tau (Murugesan et al. 2025, eq. 8).

    Args:
        target: Label map, (B, *spatial) or (B, 1, *spatial), values 0 to ``num_classes`` - 1; of four or more axes a
            second one of length 1 is the channel. Of regions, which may overlap, the binary maps, (B, R, *spatial).
        num_classes: K; None for regions. What lies outside of the image belongs to no region under ``background``.
        kernel_size, prior, sigma, padding: See :class:`Neighborhood`.
        valid: Boolean, (B, *spatial) or (B, 1, *spatial); ignored voxels (False) enter no neighbourhood.

    Returns:
        (B, K, *spatial) or (B, R, *spatial) float32. Sums to 1 over the classes, except under ``zeros``, where the
            share that lies outside is missing, and where a whole neighbourhood is ignored, where it is 0.

    Raises:
        ValueError: Bad kernel size, prior, sigma or padding, or ``valid`` of another shape.
    """
    neighborhood = Neighborhood(kernel_size, prior, sigma, padding)
    if num_classes is not None and target.ndim >= 4 and target.shape[1] == 1:
        target = target[:, 0]
    if valid is not None:
        batch, spatial = target.shape[0], target.shape[1 if num_classes is not None else 2 :]
        if tuple(valid.shape) not in ((batch, *spatial), (batch, 1, *spatial)):
            raise ValueError(
                f"valid must have shape {(batch, *spatial)} or {(batch, 1, *spatial)}, got {tuple(valid.shape)}."
            )
        valid = valid.reshape(batch, *spatial).bool()
    return shares(signed(target), num_classes, neighborhood, valid)


def shares(
    target: Tensor,
    num_classes: int | None,
    neighborhood: Neighborhood,
    valid: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """tau of a label map (B, *spatial) of so many classes, or, for None, of binary maps (B, R, *spatial) themselves."""
    if num_classes is None:
        member = target != 0
    else:
        classes = torch.arange(num_classes, device=target.device, dtype=target.dtype)
        member = target[:, None] == classes.reshape(-1, *(1,) * (target.ndim - 1))
    dims = member.ndim - 2
    if valid is not None:
        member = member & valid[:, None]
    narrow = neighborhood.prior == "mean" and prod(neighborhood.sizes(dims)) <= 255  # bytes hold what is counted
    sums = neighborhood.weighted_sum(member.to(torch.uint8 if narrow else dtype), dims).to(dtype)
    spatial = tuple(member.shape[2:])
    if neighborhood.padding == "background" and num_classes is not None:
        sums[:, 0] += neighborhood.outside_weight(spatial, member.device, dtype)
    total = neighborhood.total_weight(spatial, valid, member.device, dtype)
    return sums / (total if valid is None else total[:, None])


def _sum_sides(x: Tensor, weights: list[float], axis: int, replicate: bool) -> Tensor:
    """Weighted sum of a voxel's neighbours along one (negative) axis, itself left out, in the dtype of ``x``."""
    reach = len(weights) // 2
    length = x.shape[axis]
    if replicate:
        before, after = x.narrow(axis, 0, 1), x.narrow(axis, length - 1, 1)
        padded = torch.cat((*[before] * reach, x, *[after] * reach), axis)
    else:
        padded = F.pad(x, (0, 0) * (-axis - 1) + (reach, reach))
    total = torch.zeros_like(x)
    for i, weight in enumerate(weights):
        if i != reach:
            total.add_(padded.narrow(axis, i, length), alpha=weight)
    return total
