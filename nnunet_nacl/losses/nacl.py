"""Neighbour-aware calibration (NACL)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_nacl.losses.batch import Batch, check_class_reduction
from nnunet_nacl.losses.checks import check_choice, check_not_negative
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.losses.neighborhood import Neighborhood
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss, call_loss

PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"l1": torch.abs, "l2": torch.square}
"""P on the distance between a logit and its constraint (section 3.3, table 4): the same pull at any
distance, or one that fades near the constraint."""

SPACES = ("logits", "softmax")


def nacl(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = 0.1,
    kernel_size: int | tuple[int, ...] = 3,
    prior: str = "mean",
    sigma: float = 1.0,
    penalty: str = "l1",
    space: str = "logits",
    class_reduction: str = "mean",
    padding: str = "valid",
    prior_scale: float = 1.0,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy plus a penalty that ties logits to the shares of the neighbourhood.

    ``-log p_y + lambda R_k[P(m tau_k - l_k)]`` (Murugesan et al. 2025, eq. 9), tau_k the share of
    class k in the voxel's neighbourhood (eq. 8). lambda is ``penalty_weight``, m ``prior_scale``, P
    ``penalty``, and R_k the mean or the sum over classes k (``class_reduction``). The settings are
    those of :class:`NACLLoss`; the other arguments and the result those of all losses, see
    :mod:`nnunet_nacl.losses`.

    Examples:
        Two classes, a row of two voxels, logits (1, 2, 2):

        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(nacl(logits, labels)), 4)  # log(1 + exp(-4)) + 0.1 (|1 - 4| + |0 - 0|) / 2
        0.1681
    """
    return call_loss(NACLLoss, locals())


@dataclass(eq=False, repr=False, kw_only=True)
class NACLLoss(SegmentationLoss):
    """Neighbour-aware calibration: cross-entropy plus a penalty on logits (Murugesan et al. 2025,
    eq. 9).

    ``-log p_y + lambda R_k[P(m tau_k - l_k)]``, tau_k the share of class k in the voxel's
    neighbourhood (eq. 8). Where all neighbours agree, L1 holds p_y at 1 - lambda / K (``mean``) or
    1 - lambda (``sum``): once l_y exceeds its constraint m, the penalty's gradient in l_y,
    lambda / K or lambda, balances that of cross-entropy, p_y - 1.

    ``ignore_label``, ``regions`` and ``check_labels`` are those of :class:`SegmentationLoss`. For
    regions the constraint is m (2 tau_r - 1), and the penalty is that of the two classes in and
    out: ``|.|`` or ``(.)^2 / 2`` for ``sum``, half of that for ``mean``. ``softmax`` puts
    2 sigmoid(l_r) - 1 in place of l_r.

    Args:
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        kernel_size: Odd size of the neighbourhood in voxels, one for all axes or one per axis.
        prior: Weights in the neighbourhood: ``mean``, ``gaussian``, or ``svls`` (which the paper
            calls Gaussian).
        sigma: Width of ``gaussian`` and ``svls`` in voxels.
        penalty: P, ``l1`` or ``l2``.
        space: ``logits``, or ``softmax``, which puts p_k in place of l_k (Murugesan et al.
            2025, fig. 3).
        class_reduction: R, ``mean`` over classes (the authors' code) or ``sum`` (the paper's
            formula). They differ by the factor K: lambda under ``mean`` is lambda / K under
            ``sum``.
        padding: What lies outside of the image: ``valid``, ``background``, ``zeros`` or
            ``replicate``, see :class:`~nnunet_nacl.losses.neighborhood.Neighborhood`.
        prior_scale: m, not negative. Not in the paper; with m = 5 the logits of plain background
            may differ by 5, so that it keeps its confidence.

    Shape:
        - ``logits``: (B, K, *spatial), or (B, R, *spatial) for regions.
        - ``target``: (B, 1, *spatial) or (B, *spatial); for regions (B, R, *spatial), or
          (B, R + 1, *spatial), whose last channel marks the ignored voxels.
        - Output: a scalar.

    Raises:
        ValueError: A setting is out of range.

    Examples:
        >>> import torch
        >>> loss_function = NACLLoss(penalty_weight=0.3)
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.ones(2, 1, 16, 16)
        >>> loss = loss_function(logits, labels)
        >>> round(loss.item(), 4)  # log(3) + 0.3 (|0 - 0| + |1 - 0| + |0 - 0|) / 3
        1.1986
        >>> loss.backward()
    """

    penalty_weight: float = 0.1
    kernel_size: int | tuple[int, ...] = 3
    prior: str = "mean"
    sigma: float = 1.0
    penalty: str = "l1"
    space: str = "logits"
    class_reduction: str = "mean"
    padding: str = "valid"
    prior_scale: float = 1.0

    def check_settings(self) -> None:
        """ValueError for a setting that is out of range."""
        check_not_negative("penalty_weight", self.penalty_weight)
        self._neighborhood()
        check_choice("penalty", self.penalty, PENALTIES)
        check_choice("space", self.space, SPACES)
        check_class_reduction(self.class_reduction)
        check_not_negative("prior_scale", self.prior_scale)

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        neighborhood = self._neighborhood()
        # checked also where lambda is 0 and there is no penalty
        neighborhood.sizes(batch.num_axes)
        factor = self.penalty_weight * batch.class_factor(self.class_reduction)
        if factor == 0:
            return batch.mean(voxelwise_cross_entropy(batch))
        # The penalty is computed first: beside a Dice term the order of the terms decides in which
        # order their gradients are added, and so the last bits of the weights of a seeded training.
        voxelwise_penalty = self._penalty(batch, batch.shares(neighborhood))
        return batch.mean(voxelwise_cross_entropy(batch) + factor * voxelwise_penalty)

    def _neighborhood(self) -> Neighborhood:
        return Neighborhood(self.kernel_size, self.prior, self.sigma, self.padding)

    def _penalty(self, batch: Batch, shares: Tensor) -> Tensor:
        """``sum_k P(m tau_k - l_k)`` of each voxel, (B, *spatial); for regions (B, R, *spatial)."""
        distance_penalty = PENALTIES[self.penalty]
        logits = batch.logits
        if not batch.regions:
            constrained = logits if self.space == "logits" else torch.softmax(logits, 1)
            return distance_penalty(self.prior_scale * shares - constrained).sum(1)
        # A region's logit is the difference of the logits of its two classes, in and out. With d
        # the distance of this difference to its constraint, each class is d / 2 from its own.
        constrained = logits if self.space == "logits" else 2 * torch.sigmoid(logits) - 1
        region_penalty = distance_penalty(self.prior_scale * (2 * shares - 1) - constrained)
        # (d / 2)^2 + (d / 2)^2; for l1 d / 2 + d / 2 is d
        return region_penalty * 0.5 if self.penalty == "l2" else region_penalty
