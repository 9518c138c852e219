"""What the losses share: settings that are checked and kept in one place, and how a loss is
called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.losses.batch import Batch, read_batch


@dataclass(eq=False, repr=False, kw_only=True)
class SegmentationLoss(nn.Module):
    """A loss of logits against a segmentation; its subclasses are the losses.

    A subclass is a dataclass whose fields are its settings, with their defaults. It checks them in
    :meth:`check_settings`, and has its formula in :meth:`compute`. Every setting can be changed
    later; it is checked again when the loss is called.

    Args:
        ignore_label: Label of the voxels without ground truth; None if there are none.
        regions: False for classes (softmax), True for regions, which may overlap (sigmoid).
        check_labels: Whether to raise ValueError for labels that are no class. Each check makes a
            GPU wait: a training loop may set it to False after the first batch.

    Shape:
        - ``logits``: (B, K, *spatial) for K classes, (B, R, *spatial) for R regions.
        - ``target``: (B, 1, *spatial) or (B, *spatial); for regions (B, R, *spatial), or
          (B, R + 1, *spatial), whose last channel marks the ignored voxels.
        - Output: a scalar.

    Raises:
        ValueError: ``ignore_label`` is given for regions, or is not an integer.
    """

    ignore_label: int | None = None
    regions: bool = False
    check_labels: bool = True

    def __post_init__(self) -> None:
        super().__init__()
        LabelSpace(self.regions, self.ignore_label)  # checks them
        self.check_settings()

    def check_settings(self) -> None:
        """ValueError for a setting that is out of range."""

    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} has no method compute.")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of one batch, as described in :mod:`nnunet_nacl.losses`."""
        self.check_settings()
        batch = read_batch(
            logits,
            target,
            ignore_label=self.ignore_label,
            regions=self.regions,
            check_labels=self.check_labels,
        )
        return self.compute(batch)

    @property
    def settings(self) -> dict[str, object]:
        """The settings by name, without ``check_labels``, which changes no value."""
        return {name: value for name, value in vars(self).items() if _is_setting(name)}

    def extra_repr(self) -> str:
        """The settings, as nnU-Net writes them into debug.json."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


def _is_setting(attribute: str) -> bool:
    """Whether an attribute of a loss is a setting; the private ones and ``training`` are
    PyTorch's."""
    return not attribute.startswith("_") and attribute not in ("training", "check_labels")


def call_loss(loss_class: type[SegmentationLoss], arguments: Mapping[str, Any]) -> Tensor:
    """The loss of ``logits`` and ``target``, with the settings that are among the arguments of its
    function."""
    settings = dict(arguments)
    logits = settings.pop("logits")
    target = settings.pop("target")
    return loss_class(**settings)(logits, target)
