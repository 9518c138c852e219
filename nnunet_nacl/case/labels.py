"""The structures of a data set, as nnU-Net's label manager defines them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError


@dataclass(frozen=True)
class Labels:
    """The structures of a data set in the order of the probability channels.

    Attributes:
        names: Name of each channel; for classes the first is the background.
        values: Label value of each class, or the tuple of label values of each region.
        regions: Whether the channels are sigmoid regions.
        ignore_label: Label of voxels without ground truth, or None.
        all_values: Label values that may occur in the ground truth, the ignore label apart.
        order: Label that each region paints with, in the order in which nnU-Net paints them; empty for classes.
    """

    names: tuple[str, ...]
    values: tuple[int | tuple[int, ...], ...]
    regions: bool
    ignore_label: int | None
    all_values: tuple[int, ...]
    order: tuple[int, ...] = ()

    @property
    def foreground(self) -> tuple[int, ...]:
        """Indices of the channels that are structures."""
        return tuple(range(0 if self.regions else 1, len(self.values)))

    @property
    def region_values(self) -> tuple[int | tuple[int, ...], ...] | None:
        """The label values of each region; None for classes."""
        return self.values if self.regions else None

    @property
    def listed(self) -> list[int | list[int]]:
        """The values as JSON holds them."""
        return [list(value) if isinstance(value, tuple) else value for value in self.values]

    @property
    def meaning(self) -> list[Any]:
        """All that decides what is measured, as JSON holds it."""
        return [list(self.names), self.listed, self.ignore_label, list(self.order)]

    @property
    def structures(self) -> dict[str, str]:
        """Name of each structure by nnU-Net's key, in the order of the channels."""
        return {self.key(channel): self.names[channel] for channel in self.foreground}

    def key(self, channel: int) -> str:
        """The name that nnU-Net's summary.json gives to a structure: ``"1"`` or ``"(1, 2)"``."""
        return str(self.values[channel])

    def mask(self, segmentation: np.ndarray, channel: int) -> np.ndarray:
        """Voxels of a structure in a label map."""
        value = self.values[channel]
        if isinstance(value, tuple):
            return np.isin(segmentation, value)
        return segmentation == value

    def channels_of(self, label_map: np.ndarray) -> np.ndarray:
        """The label map itself for classes; for regions (R, *spatial) whether a voxel lies in each."""
        return np.stack([self.mask(label_map, c) for c in self.foreground]) if self.regions else label_map

    def label_map(self, probs: np.ndarray) -> np.ndarray:
        """(*spatial) label map that nnU-Net makes of (K, *spatial) or (R, *spatial) probabilities."""
        if self.regions:
            painted = np.zeros(probs.shape[1:], np.int64)
            for inside, label in zip(probs, self.order):
                painted[inside > 0.5] = label
            return smallest_type(painted)
        import torch

        # in blocks, because NumPy's and PyTorch's argmax over the first axis are slow on large arrays
        parts = torch.from_numpy(np.ascontiguousarray(probs)).flatten(1).split(1 << 16, dim=1)
        return torch.cat([part.max(0)[1].short() for part in parts]).numpy().reshape(probs.shape[1:])

    def check(self, segmentation: np.ndarray, path: Path, *, is_truth: bool) -> None:
        """UserError where a label map, in the file ``path``, holds values that dataset.json does not have.

        The ground truth alone may hold the ignore label.
        """
        allowed = {*self.all_values, *([] if self.ignore_label is None or not is_truth else [self.ignore_label])}
        unknown = [str(value).removesuffix(".0") for value in np.unique(segmentation) if value not in allowed]
        if unknown:
            what = "ground truth" if is_truth else "prediction"
            shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise UserError(
                f"{path}: the {what} holds the label {shown}, which dataset.json does not have "
                f"({', '.join(map(str, sorted(allowed)))}); correct the file or dataset.json."
            )

    @classmethod
    def of(cls, manager: Any, dataset_json: dict[str, Any], source: Path) -> Labels:
        """What nnU-Net's label manager knows, with the names of dataset.json, which belongs to the folder ``source``.

        UserError where the classes are not 0, 1, 2, ...
        """
        all_values, regions = tuple(map(int, manager.all_labels)), bool(manager.has_regions)
        if not regions and all_values != tuple(range(len(all_values))):
            raise UserError(f"dataset.json of {source}: labels must be 0, 1, 2, ..., got {all_values}.")
        values = tuple(map(_as_value, manager.foreground_regions)) if regions else all_values
        by_value = {_as_value(value): name for name, value in dataset_json["labels"].items()}
        names = tuple(by_value.get(value, str(value)) for value in values)
        order = tuple(map(int, manager.regions_class_order)) if regions else ()
        return cls(names, values, regions, manager.ignore_label, all_values, order)


def smallest_type(segmentation: np.ndarray) -> np.ndarray:
    """The label map in the smallest signed type that holds its labels."""
    largest = segmentation.max(initial=0)
    return segmentation.astype(next(kind for kind in (np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max))


def _as_value(value: Any) -> int | tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else int(value)
