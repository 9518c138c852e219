"""Neighbour-aware calibration (NACL)."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.losses.batch import PENALTIES, read_batch, require_weight, share_of_each_class
from nnunet_nacl.losses.cross_entropy import voxelwise_cross_entropy
from nnunet_nacl.losses.priors import Neighborhood, require_choice
from nnunet_nacl.methods import METHODS

DEFAULTS = METHODS["NACL"].defaults


def nacl(
    logits: Tensor,
    target: Tensor,
    *,
    penalty_weight: float = DEFAULTS["penalty_weight"],
    kernel_size: int | tuple[int, ...] = DEFAULTS["kernel_size"],
    prior: str = DEFAULTS["prior"],
    sigma: float = DEFAULTS["sigma"],
    penalty: str = DEFAULTS["penalty"],
    space: str = DEFAULTS["space"],
    class_reduction: str = DEFAULTS["class_reduction"],
    padding: str = DEFAULTS["padding"],
    prior_scale: float = DEFAULTS["prior_scale"],
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Neighbour-aware calibration: cross-entropy plus a penalty that ties logits to neighbourhood shares (eq. 9).

    ``-log p_y + lambda R_k[P(m tau_k - l_k)]``, tau_k the share of class k in the voxel's neighbourhood (eq. 8).
    Where all neighbours agree, L1 holds p_y at 1 - lambda / K (``mean``) or 1 - lambda (``sum``).

    Args:
        penalty_weight: lambda, not negative; 0 is cross-entropy.
        kernel_size: Odd size of the neighbourhood in voxels, one for all axes or one per axis.
        prior: Weights in the neighbourhood: ``mean``, ``gaussian`` or ``svls`` (what the paper calls Gaussian).
        sigma: Width of ``gaussian`` and ``svls`` in voxels.
        penalty: P, ``l1`` or ``l2``.
        space: ``logits`` as above, or ``softmax``, which replaces l by the probabilities (fig. 3 of the paper).
        class_reduction: R, ``mean`` over classes (the authors' code) or ``sum`` (the paper's formula). They differ by
            the factor K: lambda 0.1 under ``mean`` is lambda 0.1 / K under ``sum``.
        padding: Beyond the border: ``valid``, ``background``, ``zeros`` or ``replicate``; see ``Neighborhood``.
        prior_scale: m, not negative: the constraint becomes m tau. Not in the paper; with m = 5 the logits of plain
            background may differ by 5, so that it keeps its confidence.
        regions: Sigmoid heads: the constraint is m (2 tau_r - 1) and the penalty that of the two classes in and out,
            |.| or (.)^2 / 2 for ``sum``, half of that for ``mean``. ``softmax`` replaces l by 2 sigmoid(l) - 1.

    Other arguments, ignored voxels, the result and errors: see :mod:`nnunet_nacl.losses.batch`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])  # (1, 2, 2): two classes, a row of two voxels
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(nacl(logits, labels)), 4)  # log(1 + exp(-4)) + 0.1 (|1 - 4| + |0 - 0|) / 2
        0.1681
    """
    require_weight("penalty_weight", penalty_weight)
    require_weight("prior_scale", prior_scale)
    require_choice("penalty", penalty, PENALTIES)
    require_choice("space", space, ("logits", "softmax"))
    neighborhood = Neighborhood(kernel_size, prior, sigma, padding)
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    factor = penalty_weight * share_of_each_class(class_reduction, logits.shape[1], regions)
    neighborhood.sizes(logits.ndim - 2)  # checked also where lambda = 0 leaves the prior out
    if not factor:
        return batch.mean(voxelwise_cross_entropy(batch))
    shares, prediction = batch.shares(neighborhood), batch.logits
    if regions:
        shares = 2 * shares - 1
    if space == "softmax":
        prediction = 2 * torch.sigmoid(prediction) - 1 if regions else torch.softmax(prediction, 1)
    excess = PENALTIES[penalty](prior_scale * shares - prediction)
    if not regions:
        excess = excess.sum(1)
    elif penalty == "l2":  # half of the two classes' squared distances, each half of this one's: (d / 2)^2 + (d / 2)^2
        excess = excess * 0.5
    return batch.mean(voxelwise_cross_entropy(batch) + factor * excess)
