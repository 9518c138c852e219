"""Calibrating segmentation losses for PyTorch, usable with or without nnU-Net.

Each loss is a function and a module in a file of its own: :func:`nacl` and :class:`NACLLoss` in
``nacl.py``. Formulas are those of Murugesan et al. 2025 (arXiv 2401.14487) unless said otherwise:
l are logits, p probabilities, y is the label, K the number of classes. All losses have in common:

* ``logits``: (B, K, *spatial) for K classes, which exclude each other (softmax), or (B, R,
  *spatial) for R regions, which may overlap (sigmoid); any floating type; one to three spatial
  axes.
* ``target``: for classes the label map, (B, 1, *spatial) or (B, *spatial), any type. For regions
  binary maps, (B, R, *spatial), or (B, R + 1, *spatial), whose last channel is 1 where a voxel is
  ignored.
* ``ignore_label``: Label of the voxels without ground truth, for classes only. Ignored voxels give
  no loss and no gradient, and are part of no neighbourhood.
* ``regions``: Whether the channels are regions.
* ``check_labels``: Whether to raise ValueError for labels that are no class. This reads the target
  back from the device. It is left out under ``torch.compile``; inside of ``torch.func.vmap`` over
  targets it must be False.
* The result is a scalar, the mean over the valid voxels (for regions also over the regions), in
  float32, or in float64 for float64 logits, also under autocast. Without valid voxels it is 0, with
  a gradient of 0.
* TypeError for what is no tensor, such as the list of scales of a deep supervision; ValueError for
  shapes and labels that do not fit, and for settings out of range.
"""

from __future__ import annotations

from nnunet_nacl.losses.ace import ACELoss, ace
from nnunet_nacl.losses.cross_entropy import CELoss, cross_entropy
from nnunet_nacl.losses.ecp import ECPLoss, ecp
from nnunet_nacl.losses.focal import FocalLoss, focal
from nnunet_nacl.losses.label_smoothing import LabelSmoothingLoss, label_smoothing
from nnunet_nacl.losses.mbls import MbLSLoss, mbls
from nnunet_nacl.losses.nacl import NACLLoss, nacl
from nnunet_nacl.losses.neighborhood import neighborhood_proportions
from nnunet_nacl.losses.segmentation_loss import SegmentationLoss
from nnunet_nacl.losses.svls import SVLSLoss, svls

__all__ = [
    "ACELoss",
    "CELoss",
    "ECPLoss",
    "FocalLoss",
    "LabelSmoothingLoss",
    "MbLSLoss",
    "NACLLoss",
    "SVLSLoss",
    "SegmentationLoss",
    "ace",
    "cross_entropy",
    "ecp",
    "focal",
    "label_smoothing",
    "mbls",
    "nacl",
    "neighborhood_proportions",
    "svls",
]
