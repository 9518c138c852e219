"""Label smoothing (LS)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nnunet_nacl.losses.batch import read_batch
from nnunet_nacl.losses.cross_entropy import soft_cross_entropy
from nnunet_nacl.methods import METHODS

DEFAULTS = METHODS["LS"].defaults


def label_smoothing(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = DEFAULTS["smoothing"],
    ignore_label: int | None = None,
    regions: bool = False,
    check_labels: bool = True,
) -> Tensor:
    """Cross-entropy against (1 - alpha) onehot(y) + alpha / K (LS, eq. 2; Szegedy et al. 2016).

    Regions are smoothed as two classes, in and out: 1 becomes 1 - alpha / 2 and 0 becomes alpha / 2.

    Args:
        smoothing: alpha, in [0, 1]; 0 is cross-entropy.

    Other arguments, ignored voxels, the result and errors: see :mod:`nnunet_nacl.losses.batch`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[4.0, 4.0], [0.0, 0.0]]])  # (1, 2, 2): two classes, a row of two voxels
        >>> labels = torch.tensor([[0, 0]])
        >>> round(float(label_smoothing(logits, labels)), 4)  # log(1 + exp(-4)) + 0.05 * 4
        0.2181
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing!r}.")
    batch = read_batch(logits, target, ignore_label, regions, check_labels)
    if regions:
        shares = batch.labels.to(batch.logits.dtype) * (1 - smoothing) + smoothing / 2
        return batch.mean(soft_cross_entropy(batch, shares))
    labels = batch.labels.long()
    return batch.mean(F.cross_entropy(batch.logits, labels, reduction="none", label_smoothing=smoothing))
