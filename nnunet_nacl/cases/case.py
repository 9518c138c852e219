"""A case in memory: structures, segmentation, probabilities that come block by block, and the truth
if there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.file_key import FileKey
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.probabilities import CaseProbabilities
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, check_n_bins
from nnunet_nacl.metrics.overlap import boundary_mask, dilated_mask
from nnunet_nacl.metrics.voxel_uncertainty import Disagreement

MASK_NOTES = {
    "foreground": "truth is not background: the paper's",
    "union": "truth or prediction is not background",
    "dilated": "foreground grown by {dilation_mm:g} mm",
    "boundary": "within {boundary_mm:g} mm of a surface of the truth",
    "predicted": "prediction is not background: known in use",
    "near": "within {dilation_mm:g} mm of the prediction: known in use",
    "all": "every voxel",
}
"""The masks in the order of the tables, and what is in them; the settings' radii are to be filled
in."""

MASKS = tuple(MASK_NOTES)

LARGEST_RADIUS_MM = 100.0
"""Of a mask."""


@dataclass(frozen=True)
class Labels:
    """The structures of a data set in the order of the probability channels.

    Attributes:
        names: Name of each channel; for classes the first is the background.
        values: Label value of each class, or the tuple of label values of each region.
        regions: Whether the channels are sigmoid regions.
        ignore_label: Label of voxels without ground truth, or None.
        all_values: Label values that may occur in the ground truth, the ignore label apart.
        order: Label that each region paints with, in the order in which nnU-Net paints them; empty
            for classes.
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
    def meaning(self) -> list[Any]:
        """All that decides what is measured, as JSON holds it."""
        values = [list(value) if isinstance(value, tuple) else value for value in self.values]
        return [list(self.names), values, self.ignore_label, list(self.order)]

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
        """The label map itself for classes; for regions (R, *spatial) whether a voxel lies in
        each."""
        return (
            np.stack([self.mask(label_map, c) for c in self.foreground])
            if self.regions
            else label_map
        )

    def label_map(self, probs: np.ndarray) -> np.ndarray:
        """(*spatial) label map that nnU-Net makes of (K, *spatial) or (R, *spatial)
        probabilities."""
        if self.regions:
            painted = np.zeros(probs.shape[1:], np.int64)
            for inside, label in zip(probs, self.order):
                painted[inside > 0.5] = label
            return smallest_type(painted)
        import torch

        # in blocks, because NumPy's and PyTorch's argmax over the first axis are slow on large
        # arrays
        parts = torch.from_numpy(np.ascontiguousarray(probs)).flatten(1).split(1 << 16, dim=1)
        return (
            torch.cat([part.max(0)[1].short() for part in parts]).numpy().reshape(probs.shape[1:])
        )

    def check(self, segmentation: np.ndarray, path: Path, *, is_truth: bool) -> None:
        """UserError where a label map, in the file ``path``, holds values that dataset.json does
        not have.

        The ground truth alone may hold the ignore label.
        """
        allowed = {
            *self.all_values,
            *([self.ignore_label] if is_truth and self.ignore_label is not None else []),
        }
        if unknown := [
            str(value).removesuffix(".0")
            for value in np.unique(segmentation)
            if value not in allowed
        ]:
            what = "ground truth" if is_truth else "prediction"
            shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise UserError(
                f"{path}: the {what} holds the label {shown}, which dataset.json does not have "
                f"({', '.join(map(str, sorted(allowed)))}); correct the file or dataset.json."
            )

    @classmethod
    def of(cls, manager: Any, dataset_json: dict[str, Any], source: Path) -> Labels:
        """What nnU-Net's label manager knows, with the names of dataset.json, which belongs to the
        folder ``source``.

        UserError where the classes are not 0, 1, 2, ...
        """
        all_values, regions = tuple(map(int, manager.all_labels)), bool(manager.has_regions)
        if not regions and all_values != tuple(range(len(all_values))):
            raise UserError(
                f"dataset.json of {source}: labels must be 0, 1, 2, ..., got {all_values}."
            )
        values = tuple(map(_as_value, manager.foreground_regions)) if regions else all_values
        by_value = {_as_value(value): name for name, value in dataset_json["labels"].items()}
        names = tuple(by_value.get(value, str(value)) for value in values)
        order = tuple(map(int, manager.regions_class_order)) if regions else ()
        return cls(names, values, regions, manager.ignore_label, all_values, order)


def smallest_type(segmentation: np.ndarray) -> np.ndarray:
    """The label map in the smallest signed type that holds its labels."""
    largest = segmentation.max(initial=0)
    return segmentation.astype(
        next(kind for kind in (np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max)
    )


def _as_value(value: Any) -> int | tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else int(value)


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured of a case that has a ground truth.

    Attributes:
        n_bins: Number of confidence bins.
        dilation_mm: Radius by which the masks ``dilated`` and ``near`` grow the true and the
            predicted foreground.
        boundary_mm: Reach of the mask ``boundary`` to either side of a surface.
    """

    n_bins: int = DEFAULT_N_BINS
    dilation_mm: float = 2.0
    boundary_mm: float = 2.0

    def __post_init__(self) -> None:
        check_n_bins(self.n_bins)
        for name in ("dilation_mm", "boundary_mm"):
            if not 0 <= (radius := getattr(self, name)) <= LARGEST_RADIUS_MM:
                raise ValueError(
                    f"{name} must be a distance in mm, from 0 to {LARGEST_RADIUS_MM:g}, got"
                    f" {radius!r}."
                )

    @property
    def reach(self) -> str:
        """How far the masks around structures reach, in words."""
        return f"{self.dilation_mm:g} mm (dilated, near) and {self.boundary_mm:g} mm (boundary)"

    def differing(self, other: EvaluationSettings) -> str:
        """What is measured in another way than under ``other``: ``n_bins 10, not 15``; empty where
        nothing is."""
        pairs = ((name, mine, vars(other)[name]) for name, mine in vars(self).items())
        return ", ".join(
            f"{name} {mine}, not {theirs}" for name, mine, theirs in pairs if mine != theirs
        )


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of a case for those who count.

    Attributes:
        labels: (*spatial) label map, 0 where it is ignored.
        valid: (*spatial) False where it is ignored; None where nothing is.
        around: (*spatial) the masks ``dilated``, ``boundary`` and ``near``.
    """

    labels: np.ndarray
    valid: np.ndarray | None
    around: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """One case in memory; arrays are in nnU-Net's array axis order.

    Attributes:
        name: Of the case.
        labels: The structures of its data set.
        geometry: Where the image lies.
        segmentation: (*spatial) predicted label map.
        probabilities: Their source, as the network gave them.
        truth: (*spatial) ground-truth label map, ignored voxels still marked; None where there is
            none.
        properties: What nnU-Net's reader said of the segmentation, for whoever writes another one.
        saved: The npz file that the probabilities were read from; None where there is none.
        images: Files of the scan; empty where they are not known.
        image: (*spatial) its first channel in half precision, scaled to [0, 1]; None where it was
            not read.
        networks: Names of the networks whose mean the probabilities are.
        disagreement: Of these networks; None with one.
        differences: How the image differs from the training's, in words.
        profile: What the scan looks like; empty where no image was read.
        made_by: How the probabilities were made, as far as it is known, as in its record.
        files: By place in the folder of its source, what was written of it there.
    """

    name: str
    labels: Labels
    geometry: Geometry
    segmentation: np.ndarray
    probabilities: CaseProbabilities = CaseProbabilities()
    truth: Any = None
    properties: dict[str, Any] = field(default_factory=dict)
    saved: Path | None = None
    images: tuple[Path, ...] = ()
    image: np.ndarray | None = None
    networks: tuple[str, ...] = ("",)
    disagreement: Disagreement | None = None
    differences: tuple[str, ...] = ()
    profile: tuple[float, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileKey] = field(default_factory=dict)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel spacing in the order of the axes."""
        return self.geometry.spacing_mm

    def read_truth(self, settings: EvaluationSettings) -> Truth | None:
        """The truth and the masks around it, with the radii of the settings; None where there is
        none."""
        if self.truth is None:
            return None
        truth, ignore = self.truth, self.labels.ignore_label
        valid = None if ignore is None else truth != ignore
        if valid is not None:
            truth, valid = (truth, None) if valid.all() else (np.where(valid, truth, 0), valid)
        around = {
            "dilated": dilated_mask(truth, settings.dilation_mm, self.spacing_mm, valid=valid),
            "boundary": boundary_mask(truth, settings.boundary_mm, self.spacing_mm, valid=valid),
            "near": dilated_mask(self.segmentation != 0, settings.dilation_mm, self.spacing_mm),
        }
        return Truth(truth, valid, around)
