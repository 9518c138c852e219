"""What the modules of all losses share."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_nacl.label_space import LabelSpace


class SegmentationLoss(nn.Module):
    """A loss of logits against a segmentation; its subclasses are the losses.

    A subclass checks its own settings in its constructor, keeps each as an attribute of the same
    name, and hands them to its function in :meth:`forward`. Every attribute can be changed later;
    the function checks it again.

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

    def __init__(self, *, ignore_label: int | None, regions: bool, check_labels: bool) -> None:
        super().__init__()
        LabelSpace(regions, ignore_label)  # checks them
        self.ignore_label = ignore_label
        self.regions = regions
        self.check_labels = check_labels

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of one batch, as described in :mod:`nnunet_nacl.losses`."""
        raise NotImplementedError(f"{type(self).__name__} has no method forward.")

    @property
    def settings(self) -> dict[str, object]:
        """The arguments of the constructor by name, without ``check_labels``, which changes no
        value."""
        return {name: value for name, value in vars(self).items() if _is_setting(name)}

    def extra_repr(self) -> str:
        """The settings, as nnU-Net writes them into debug.json."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


def _is_setting(attribute: str) -> bool:
    """Whether an attribute of a loss is a setting; the private ones and ``training`` are
    PyTorch's."""
    return not attribute.startswith("_") and attribute not in ("training", "check_labels")
