"""The losses as functions. The modules in :mod:`nnunet_nacl.losses.modules` only hold their settings.

Common to all:

* ``logits``: (B, K, *spatial) for K classes, (B, R, *spatial) with ``regions=True``; one to three spatial axes.
* ``target``: classes (B, 1, *spatial) or (B, *spatial), any dtype; regions (B, R, *spatial) binary, or
  (B, R + 1, *spatial) whose last channel marks ignored voxels.
* ``ignore_label``: voxels with this label give no loss and no gradient and enter no neighbourhood.
* ``check_labels``: raise ValueError for labels that are no class. Reads the target back from the device; left out
  under torch.compile.
* The result is the mean over the N valid voxels (regions: and over regions), a scalar in float32, or float64 for
  float64 logits, also under autocast. N = 0 gives 0 with zero gradient.
* ValueError for shapes that do not fit and for settings out of range.
* On the CPU most forms for classes compute the gradient together with the value, in less time and memory than
  automatic differentiation takes (:mod:`nnunet_nacl.losses.analytic`). They can be differentiated once; a second
  time raises RuntimeError, except inside of ``with automatic_differentiation():``.

Formulas are those of Murugesan et al. 2024 (arXiv 2401.14487) unless said otherwise. y is the label, p the softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace, Target
from nnunet_nacl.losses import analytic, voxelwise
from nnunet_nacl.losses.penalties import class_reduction, penalty_function
from nnunet_nacl.losses.priors import Neighborhood, class_shares, region_shares

__all__ = ["cross_entropy", "ecp", "focal", "label_smoothing", "mbls", "nacl", "svls"]

SPACES = ("logits", "softmax")


def cross_entropy(
    logits: Tensor, target: Tensor, *, ignore_label: int | None = None, regions: bool = False, check_labels: bool = True
) -> Tensor:
    """Cross-entropy, -log p_y (eq. 1); binary cross-entropy for regions.

    With an ignore label nnU-Net's own binary cross-entropy sums over the regions; this one is always their mean.

    Args:
        logits: See the module's description, like all arguments.
        target: Labels.
        ignore_label: Label without ground truth.
        regions: Sigmoid heads.
        check_labels: Check the values of ``target``.

    Returns:
        Scalar.

    Raises:
        ValueError: Shapes or labels do not fit.
    """
    return label_smoothing(
        logits, target, smoothing=0.0, ignore_label=ignore_label, regions=regions, check_labels=check_labels
    )


def label_smoothing(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = 0.1,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy against (1 - alpha) onehot(y) + alpha / K (LS, eq. 2; Szegedy et al. 2016).

    Regions are smoothed as two classes, in and out: 1 becomes 1 - alpha / 2 and 0 becomes alpha / 2.

    Args:
        logits: See the module's description, like all arguments not named here.
        target: Labels.
        smoothing: alpha, in [0, 1]; 0 is cross-entropy.
        ignore_label: Label without ground truth.
        regions: Sigmoid heads.
        check_labels: Check the values of ``target``.

    Returns:
        Scalar.

    Raises:
        ValueError: ``smoothing`` out of range, or shapes or labels do not fit.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing!r}.")
    logits, read = _read(logits, target, ignore_label, regions, check_labels)
    if regions:
        shares = read.labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return _mean(voxelwise.region_cross_entropy(logits, shares), read)
    if _in_place(logits, regions):
        return analytic.mean_with_analytic_gradient(logits, read, analytic.SmoothedLabelTerm(smoothing))
    return _mean(voxelwise.class_cross_entropy(logits, read.labels, smoothing), read)


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 3.0,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Focal loss, -(1 - p_y)^gamma log p_y (Lin et al. 2017), as a mean over voxels.

    Args:
        logits: See the module's description, like all arguments not named here.
        target: Labels.
        gamma: Focusing parameter, not negative; 0 is cross-entropy.
        ignore_label: Label without ground truth.
        regions: Sigmoid heads; p_y is then the probability of the true side.
        check_labels: Check the values of ``target``.

    Returns:
        Scalar.

    Raises:
        ValueError: ``gamma`` is negative, or shapes or labels do not fit.
    """
    _require_weight("gamma", gamma)
    logits, read = _read(logits, target, ignore_label, regions, check_labels)
    if _in_place(logits, regions):
        return analytic.mean_with_analytic_gradient(logits, read, analytic.FocalTerm(gamma))
    term = voxelwise.region_focal if regions else voxelwise.class_focal
    return _mean(term(logits, read.labels, gamma), read)


def ecp(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = 0.1,
    reduction: str = "mean",
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy less alpha times the entropy of the prediction (ECP, Pereyra et al. 2017).

    ``CE - alpha R_k[-p_k log p_k]``; the authors of NACL average the entropy's terms over the classes.

    Args:
        logits: See the module's description, like all arguments not named here.
        target: Labels.
        penalty_weight: alpha, not negative; 0 is cross-entropy.
        reduction: R, ``mean`` or ``sum`` over classes; they differ by the factor K.
        ignore_label: Label without ground truth.
        regions: Sigmoid heads: the binary entropy (``sum``) or half of it (``mean``).
        check_labels: Check the values of ``target``.

    Returns:
        Scalar.

    Raises:
        ValueError: A setting out of range, or shapes or labels do not fit.
    """
    _require_weight("penalty_weight", penalty_weight)
    logits, read = _read(logits, target, ignore_label, regions, check_labels)
    factor = penalty_weight * class_reduction(reduction, logits.shape[1], regions)
    if _in_place(logits, regions):
        return analytic.mean_with_analytic_gradient(logits, read, analytic.EntropyTerm(factor))
    loss = _cross_entropy(logits, read, regions)
    if factor:
        loss = loss - factor * (voxelwise.region_entropy if regions else voxelwise.class_entropy)(logits)
    return _mean(loss, read)


def mbls(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = 0.1,
    margin: float = 5.0,
    reduction: str = "mean",
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Margin-based label smoothing, CE + lambda R_k[relu(max_j l_j - l_k - m)] (Liu et al. 2022, eq. 7).

    Args:
        logits: See the module's description, like all arguments not named here.
        target: Labels.
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        margin: m, how far the largest logit may exceed the others, not negative.
        reduction: R, ``mean`` or ``sum`` over classes; they differ by the factor K.
        ignore_label: Label without ground truth.
        regions: Sigmoid heads: relu(|l_r| - m) (``sum``) or half of it (``mean``).
        check_labels: Check the values of ``target``.

    Returns:
        Scalar.

    Raises:
        ValueError: A setting out of range, or shapes or labels do not fit.
    """
    _require_weight("penalty_weight", penalty_weight)
    _require_weight("margin", margin)
    logits, read = _read(logits, target, ignore_label, regions, check_labels)
    factor = penalty_weight * class_reduction(reduction, logits.shape[1], regions)
    if _in_place(logits, regions):
        return analytic.mean_with_analytic_gradient(logits, read, analytic.MarginTerm(factor, margin))
    loss = _cross_entropy(logits, read, regions)
    if factor:
        term = voxelwise.region_margin_excess if regions else voxelwise.class_margin_excess
        loss = loss + factor * term(logits, margin)
    return _mean(loss, read)


def svls(
    logits: Tensor,
    target: Tensor,
    *,
    sigma: float = 2.0,
    kernel_size: int | tuple[int, ...] = 3,
    padding: str = "replicate",
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy against spatially smoothed labels, -sum_k tau_k log p_k (SVLS, eq. 3; Islam & Glocker 2021).

    tau comes from a Gaussian kernel whose centre weighs as much as all of its neighbours together.

    Args:
        logits: See the module's description, like all arguments not named here.
        target: Labels.
        sigma: Width of the kernel in voxels.
        kernel_size: Odd size, one for all axes or one per axis.
        padding: ``replicate`` (the authors' code), ``valid``, ``background`` or ``zeros``.
        ignore_label: Label without ground truth.
        regions: Sigmoid heads: binary cross-entropy against the region's share.
        check_labels: Check the values of ``target``.

    Returns:
        Scalar.

    Raises:
        ValueError: A setting out of range, or shapes or labels do not fit.
    """
    neighborhood = Neighborhood(kernel_size, "svls", sigma, padding)
    logits, read = _read(logits, target, ignore_label, regions, check_labels)
    if _in_place(logits, regions) and padding != "zeros":  # under "zeros" tau does not sum to 1
        return analytic.mean_with_analytic_gradient(
            logits, read, analytic.SmoothedNeighborhoodTerm(neighborhood, logits, read)
        )
    shares = _shares(logits, read, neighborhood, regions)
    term = voxelwise.region_cross_entropy if regions else voxelwise.class_soft_cross_entropy
    return _mean(term(logits, shares), read)


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
    reduction: str = "mean",
    padding: str = "valid",
    prior_scale: float = 1.0,
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Neighbour-aware calibration: cross-entropy plus a penalty that ties logits to neighbourhood shares (eq. 9).

    ``-log p_y + lambda R_k[P(m tau_k - l_k)]``, tau_k the share of class k in the voxel's neighbourhood (eq. 8).
    Where all neighbours agree, L1 holds p_y at 1 - lambda / K (``mean``) or 1 - lambda (``sum``).

    Args:
        logits: See the module's description, like all arguments not named here.
        target: Labels.
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        kernel_size: Odd size of the neighbourhood in voxels, one for all axes or one per axis.
        prior: Weights in the neighbourhood: ``mean``, ``gaussian`` or ``svls`` (what the paper calls Gaussian).
        sigma: Width of ``gaussian`` and ``svls`` in voxels.
        penalty: P, ``l1`` or ``l2``.
        space: ``logits`` as above, or ``softmax``, which replaces l by the probabilities (fig. 3 of the paper).
        reduction: R, ``mean`` over classes (the authors' code) or ``sum`` (the paper's formula). They differ by the
            factor K: lambda 0.1 under ``mean`` is lambda 0.1 / K under ``sum``.
        padding: Beyond the border: ``valid``, ``background``, ``zeros`` or ``replicate``; see ``Neighborhood``.
        prior_scale: m, not negative: the constraint becomes m tau. Not in the paper; with m = 5 the logits of plain
            background may differ by 5, so that it keeps its confidence.
        ignore_label: Label without ground truth.
        regions: Sigmoid heads: the constraint is m (2 tau_r - 1) and the penalty that of the two classes in and out,
            |.| or (.)^2 / 2 for ``sum``, half of that for ``mean``. ``softmax`` replaces l by 2 sigmoid(l) - 1.
        check_labels: Check the values of ``target``.

    Returns:
        Scalar.

    Raises:
        ValueError: A setting out of range, or shapes or labels do not fit.
    """
    _require_weight("penalty_weight", penalty_weight)
    _require_weight("prior_scale", prior_scale)
    distance_penalty = penalty_function(penalty)
    if space not in SPACES:
        raise ValueError(f"space must be one of {', '.join(SPACES)}, got {space!r}.")
    neighborhood = Neighborhood(kernel_size, prior, sigma, padding)
    logits, read = _read(logits, target, ignore_label, regions, check_labels)
    factor = penalty_weight * class_reduction(reduction, logits.shape[1], regions)
    neighborhood.sizes(logits.ndim - 2)  # checked also where lambda = 0 leaves the prior out
    if not factor:
        return cross_entropy(logits, target, ignore_label=ignore_label, regions=regions, check_labels=False)
    if _in_place(logits, regions) and space == "logits":
        term = analytic.NeighborhoodPenaltyTerm(neighborhood, logits, read, penalty, factor, prior_scale)
        return analytic.mean_with_analytic_gradient(logits, read, term)
    shares = _shares(logits, read, neighborhood, regions)
    if regions:
        shares = 2 * shares - 1
        prediction = logits if space == "logits" else 2 * torch.sigmoid(logits) - 1
        # Half of the two classes' squared distances, each of which is half of this one's: (d / 2)^2 + (d / 2)^2.
        excess = distance_penalty(prior_scale * shares - prediction) * (0.5 if penalty == "l2" else 1.0)
    else:
        prediction = logits if space == "logits" else torch.softmax(logits, 1)
        excess = distance_penalty(prior_scale * shares - prediction).sum(1)
    return _mean(_cross_entropy(logits, read, regions) + factor * excess, read)


def _read(
    logits: Tensor, target: Tensor, ignore_label: int | None, regions: bool, check_labels: bool
) -> tuple[Tensor, Target]:
    read = LabelSpace(regions, ignore_label).read(logits, target, check_labels)
    # Half precision logits are computed in float32: their sums over a volume and exp() would overflow.
    return (logits if logits.dtype == torch.float64 else logits.float()), read


def _in_place(logits: Tensor, regions: bool) -> bool:
    return not regions and analytic.wants_analytic_gradient(logits)


def _cross_entropy(logits: Tensor, read: Target, regions: bool) -> Tensor:
    return (voxelwise.region_cross_entropy if regions else voxelwise.class_cross_entropy)(logits, read.labels)


@torch.no_grad()
def _shares(logits: Tensor, read: Target, neighborhood: Neighborhood, regions: bool) -> Tensor:
    if regions:
        return region_shares(read.labels, neighborhood, read.valid, logits.dtype)
    return class_shares(read.labels, logits.shape[1], neighborhood, read.valid, logits.dtype)


def _mean(per_voxel: Tensor, read: Target) -> Tensor:
    """Mean over valid voxels, and over regions where there are any; 0 if no voxel is valid."""
    if read.valid is None:
        return per_voxel.sum() / max(per_voxel.numel(), 1)
    valid = read.valid if per_voxel.ndim == read.valid.ndim else read.valid[:, None]
    total = torch.where(valid, per_voxel, torch.zeros((), dtype=per_voxel.dtype, device=per_voxel.device)).sum()
    return total / (read.valid.sum().clamp_min(1) * (per_voxel.numel() // max(read.num_voxels, 1)))


def _require_weight(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number, not negative; got {value!r}.")
