"""A case in memory: structures, segmentation, probabilities that come block by block, and truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.probabilities import CaseProbabilities
from nnunet_nacl.cases.record_key import FileKey
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, check_n_bins
from nnunet_nacl.metrics.distance_masks import boundary_mask, dilated_mask
from nnunet_nacl.metrics.voxel_uncertainty import Disagreement
from nnunet_nacl.utilities.errors import UserError

MASK_NOTES = {
    "foreground": "truth is not background: the mask of the NACL paper",
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

TRUTH_MASKS = ("foreground", "union", "dilated", "boundary")
"""Those that are chosen with the truth: even perfect calibration has an error there."""

LARGEST_RADIUS_MM = 100.0
"""The largest radius that a mask may have."""


@dataclass(frozen=True)
class Labels:
    """The structures of a data set in the order of the probability channels.

    The ``labels`` of a case, a folder or a model are always these. An array with a label value for
    each voxel is a label map: a segmentation, or a truth.

    K is the number of classes with the background, R that of regions.

    Attributes:
        names: Name of each channel; for classes the first is the background.
        values: Label value of each class, or the tuple of label values of each region.
        regions: Whether the channels are sigmoid regions.
        ignore_label: Label value of voxels without ground truth, or None.
        all_values: Label values that may occur in the ground truth, the ignore label apart.
        order: Label value that each region is painted with, in the order in which nnU-Net paints
            them; empty for classes.
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
        first = 0 if self.regions else 1
        return tuple(range(first, len(self.values)))

    @property
    def meaning(self) -> list[object]:
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
        """The label map itself for classes; for regions (R, *spatial) whether a voxel is inside."""
        if not self.regions:
            return label_map
        return np.stack([self.mask(label_map, channel) for channel in self.foreground])

    def label_map(self, probs: np.ndarray) -> np.ndarray:
        """(*spatial) label map that nnU-Net makes of (K or R, *spatial) probabilities."""
        if self.regions:
            painted = np.zeros(probs.shape[1:], np.int64)
            for inside, value in zip(probs, self.order):
                painted[inside > 0.5] = value
            return smallest_type(painted)
        import torch

        # NumPy's and PyTorch's argmax over the first axis are slow on large arrays. PyTorch's max
        # of small parts is fast, and gives the index of the first of equal classes, too.
        voxels = torch.from_numpy(np.ascontiguousarray(probs)).flatten(1)
        parts = []
        for part in voxels.split(1 << 16, dim=1):
            _, most_probable = part.max(0)
            parts.append(most_probable.short())
        return torch.cat(parts).numpy().reshape(probs.shape[1:])

    def check(self, segmentation: np.ndarray, path: Path, *, is_truth: bool) -> None:
        """UserError where a label map holds values that dataset.json does not have.

        Args:
            segmentation: (*spatial) label map.
            path: Its file, for the message.
            is_truth: Whether it is a ground truth, which alone may hold the ignore label.
        """
        what = "prediction"
        allowed = set(self.all_values)
        if is_truth:
            what = "ground truth"
            if self.ignore_label is not None:
                allowed.add(self.ignore_label)
        unknown = [value for value in np.unique(segmentation) if value not in allowed]
        if not unknown:
            return
        listed = ", ".join(str(value).removesuffix(".0") for value in unknown[:5])
        if len(unknown) > 5:
            listed += ", ..."
        raise UserError(
            f"{path}: the {what} holds the label {listed}, which dataset.json does not have "
            f"({', '.join(map(str, sorted(allowed)))}); correct the file or dataset.json."
        )

    @classmethod
    def of(cls, manager: Any, dataset_json: dict[str, Any], source: Path) -> Labels:
        """What nnU-Net's label manager knows, with the names of dataset.json.

        Args:
            manager: nnU-Net's label manager.
            dataset_json: Content of dataset.json.
            source: Folder that it belongs to, for the message.

        Raises:
            UserError: The classes are not 0, 1, 2, ...
        """
        all_values = tuple(map(int, manager.all_labels))
        regions = bool(manager.has_regions)
        values: tuple[int | tuple[int, ...], ...] = all_values
        order: tuple[int, ...] = ()
        if regions:
            values = tuple(map(_as_value, manager.foreground_regions))
            order = tuple(map(int, manager.regions_class_order))
        elif all_values != tuple(range(len(all_values))):
            raise UserError(
                f"dataset.json of {source}: labels must be 0, 1, 2, ..., got {all_values}."
            )
        name_of = {_as_value(value): name for name, value in dataset_json["labels"].items()}
        names = tuple(name_of.get(value, str(value)) for value in values)
        return cls(names, values, regions, manager.ignore_label, all_values, order)


def smallest_type(segmentation: np.ndarray) -> np.ndarray:
    """The label map in the smallest signed type that holds its labels."""
    largest = segmentation.max(initial=0)
    for kind in (np.int16, np.int32):
        if largest <= np.iinfo(kind).max:
            return segmentation.astype(kind)
    return segmentation.astype(np.int64)


def _as_value(value: Any) -> int | tuple[int, ...]:
    """A label, or the labels of a region, as nnU-Net or dataset.json has them."""
    if isinstance(value, (tuple, list)):
        return tuple(map(int, value))
    return int(value)


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
            radius = getattr(self, name)
            if not 0 <= radius <= LARGEST_RADIUS_MM:
                raise ValueError(
                    f"{name} must be a distance in mm, from 0 to {LARGEST_RADIUS_MM:g}, got"
                    f" {radius!r}."
                )

    @property
    def reach(self) -> str:
        """How far the masks around structures reach, in words."""
        return f"{self.dilation_mm:g} mm (dilated, near) and {self.boundary_mm:g} mm (boundary)"

    def differing(self, other: EvaluationSettings) -> str:
        """What is measured in another way than under ``other``: ``n_bins 10, not 15``.

        Empty where nothing is.
        """
        differences = []
        for name, value in vars(self).items():
            other_value = vars(other)[name]
            if value != other_value:
                differences.append(f"{name} {value}, not {other_value}")
        return ", ".join(differences)


class InferenceSettings(TypedDict, total=False):
    """Settings of the networks on which the numbers of a case depend.

    Attributes:
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Whether mirrored copies were predicted too.
    """

    step_size: Annotated[float, Field(gt=0, le=1)]
    mirroring: bool


class MadeBy(InferenceSettings, total=False):
    """How the probabilities of a case were made, as far as it is known.

    Attributes:
        checkpoint: SHA-256 of the one network.
        checkpoints: The same of several, by fold.
        model_files: SHA-256 of what lies beside them, such as plans.json.
    """

    checkpoint: str
    checkpoints: dict[str, str]
    model_files: dict[str, str]


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of a case, made ready for sums over its voxels.

    Attributes:
        label_map: (*spatial), 0 where it is ignored.
        valid: (*spatial) False where it is ignored; None where nothing is.
        around: By name the (*spatial) masks ``dilated`` and ``boundary``, which lie around the
            truth, and ``near``, which lies around the prediction. ``near`` may hold ignored voxels;
            whoever counts leaves these out by ``valid``.
    """

    label_map: np.ndarray
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
        networks: Names of the networks whose mean the probabilities are; a single empty
            name where they are not known.
        disagreement: Of these networks; None with one.
        differences: How the image differs from the training's, in words.
        profile: What the scan looks like; empty where no image was read.
        made_by: How the probabilities were made, as far as it is known, as in its record.
        files: What was written of it in the output folder, by the path there, with / between names.
    """

    name: str
    labels: Labels
    geometry: Geometry
    segmentation: np.ndarray
    probabilities: CaseProbabilities = CaseProbabilities()
    truth: np.ndarray | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    saved: Path | None = None
    images: tuple[Path, ...] = ()
    image: np.ndarray | None = None
    networks: tuple[str, ...] = ("",)
    disagreement: Disagreement | None = None
    differences: tuple[str, ...] = ()
    profile: tuple[float, ...] = ()
    made_by: MadeBy = field(default_factory=MadeBy)
    files: dict[str, FileKey] = field(default_factory=dict)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel spacing in the order of the axes."""
        return self.geometry.spacing_mm

    def prepare_truth(self, settings: EvaluationSettings) -> Truth | None:
        """The truth and the masks around it, with the settings' radii; None where there is none."""
        if self.truth is None:
            return None
        label_map = self.truth
        valid = None
        if self.labels.ignore_label is not None:
            is_valid = label_map != self.labels.ignore_label
            if not is_valid.all():
                valid = is_valid
                label_map = np.where(valid, label_map, 0)
        dilation_mm = settings.dilation_mm
        boundary_mm = settings.boundary_mm
        around = {
            "dilated": dilated_mask(label_map, dilation_mm, self.spacing_mm, valid=valid),
            "boundary": boundary_mask(label_map, boundary_mm, self.spacing_mm, valid=valid),
            "near": dilated_mask(self.segmentation != 0, dilation_mm, self.spacing_mm),
        }
        return Truth(label_map, valid, around)
