"""The voxels of one case as calibration takes them: log-odds, truth and masks of what the network saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.affine import log_odds, network_box
from nnunet_nacl.calibration.likelihood import Voxels
from nnunet_nacl.calibration.sampling import MASK_BITS, pack
from nnunet_nacl.metrics.masks import boundary_mask, dilated_mask

__all__ = ["HeldOutCase", "read_voxels"]


@dataclass(frozen=True)
class HeldOutCase:
    """What calibration needs of one case.

    Attributes:
        voxels: Those that the network saw and that have a truth.
        masks: (N,) bits of ``MASK_BITS`` for each.
        outside: (V, 3) target, masks and number of the voxels that the network did not see.
    """

    voxels: Voxels
    masks: np.ndarray
    outside: np.ndarray


def read_voxels(data: Any, labels: Any, settings: Any) -> HeldOutCase:
    """Take apart one case in memory.

    Args:
        data: Its ``probs``, ``truth`` and ``spacing_mm``, as an evaluation loads them.
        labels: Its structures, as an evaluation knows them.
        settings: ``dilation_mm`` and ``boundary_mm`` of the masks.

    Raises:
        ValueError: The network saw no voxel that has a truth.
    """
    probs = data.probs
    truth, valid = data.truth, np.ones(data.truth.shape, dtype=bool)
    if labels.ignore_label is not None:
        valid = truth != labels.ignore_label
        truth = np.where(valid, truth, 0)
    target = np.stack([labels.mask(truth, c) for c in labels.foreground]) if labels.regions else truth
    inside = target.any(0) if labels.regions else truth != 0
    predicted = (probs > 0.5).any(0) if labels.regions else probs.argmax(0) != 0
    known = {
        "foreground": inside,
        "union": inside | predicted,
        "dilated": dilated_mask(truth, settings.dilation_mm, data.spacing_mm, valid=valid),
        "boundary": boundary_mask(truth, settings.boundary_mm, data.spacing_mm, valid=valid),
        "predicted": predicted,
    }
    bits = sum(known[name].astype(np.uint8) << bit for bit, name in enumerate(MASK_BITS))
    inner, box = np.zeros(truth.shape, dtype=bool), network_box(probs, labels.regions)
    if box is not None:
        inner[box] = valid[box]
    outer = valid & ~inner
    codes = pack(target.reshape(len(target), -1)).reshape(truth.shape) if labels.regions else truth
    pairs = np.stack([codes[outer], bits[outer]], 1).astype(np.int64)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    if not inner.any():
        raise ValueError("nothing but certain background, or nothing with a ground truth; leave this case out.")
    odds = log_odds(probs[:, inner], labels.regions).float()
    voxels = Voxels(odds, torch.from_numpy(np.ascontiguousarray(target[..., inner])))
    return HeldOutCase(voxels, bits[inner], np.column_stack([pairs, counts]))
