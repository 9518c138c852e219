"""Spatially varying label smoothing (SVLS)."""

from __future__ import annotations

from torch import Tensor

from nnunet_nacl.losses.batch import read_batch
from nnunet_nacl.losses.cross_entropy import soft_cross_entropy
from nnunet_nacl.losses.priors import Neighborhood
from nnunet_nacl.methods import METHODS

DEFAULTS = METHODS["SVLS"].defaults


def svls(
    logits: Tensor,
    target: Tensor,
    *,
    sigma: float = DEFAULTS["sigma"],
    kernel_size: int | tuple[int, ...] = DEFAULTS["kernel_size"],
    padding: str = DEFAULTS["padding"],
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy against spatially smoothed labels, -sum_k tau_k log p_k (SVLS, eq. 3; Islam & Glocker 2021).

    tau comes from a Gaussian kernel whose centre weighs as much as all of its neighbours together.

    Args:
        sigma: Width of the kernel in voxels.
        kernel_size: Odd size, one for all axes or one per axis.
        padding: ``replicate`` (the authors' code), ``valid``, ``background`` or ``zeros``.
        regions: Sigmoid heads: binary cross-entropy against the region's share.

    Other arguments, ignored voxels, the result and errors: see :mod:`nnunet_nacl.losses.batch`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])  # (1, 2, 2): two classes, a row of two voxels
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(svls(logits, labels)), 4)  # all neighbours agree: cross-entropy
        0.0181
    """
    neighborhood = Neighborhood(kernel_size, "svls", sigma, padding)
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    return batch.mean(soft_cross_entropy(batch, batch.shares(neighborhood)))
