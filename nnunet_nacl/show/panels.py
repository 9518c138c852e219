"""The pictures of one case, each with the words that stand for it where it cannot be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnunet_nacl.cases.kept_slices import slicing_axis
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.errors import UserError
from nnunet_nacl.show.case_files import (
    Folders,
    Truth,
    channel_name,
    kept_slices,
    read_confidence,
    read_image,
    read_prediction,
    read_truth,
)
from nnunet_nacl.show.data_uris import data_uri
from nnunet_nacl.show.drawing import Grid, draw_confidence, draw_labels
from nnunet_nacl.show.orientation import Plane, anatomical_axes, plane_of
from nnunet_nacl.show.reliability_chart import reliability_svg, reliability_text
from nnunet_nacl.show.slices import choose_slice, crop_box

__all__ = ["CasePanels", "Picture", "make_panels"]

_SURE = 0.8


@dataclass(frozen=True)
class Picture:
    """A picture for an ``img``; without ``src`` it is missing, and ``alt`` says so."""

    title: str
    alt: str
    src: str = ""
    width: int = 0
    height: int = 0


@dataclass
class CasePanels:
    """What is shown of a case; by trainer, ``methods`` has prediction, confidence and reliability."""

    case: str
    caption: str = ""
    pictures: tuple[Picture, ...] = ()
    methods: dict[str, tuple[Picture, ...]] = field(default_factory=dict)
    has_ignored: bool = False
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _View:
    """A part of a slice, as it is shown."""

    plane: Plane
    index: int
    box: tuple[slice, slice]
    grid: Grid

    def __call__(self, volume: np.ndarray) -> np.ndarray:
        return self.plane.cut(volume, self.index)[self.box]

    def flat(self, array: np.ndarray) -> np.ndarray:
        """The part of a slice that was cut already."""
        return self.plane.turn(array)[self.box]

    def picture(self, title: str, alt: str, png: bytes) -> Picture:
        """What was drawn of it."""
        height, width = self.grid.pixels
        return Picture(title, alt, data_uri(png, ".png"), width, height)

    def areas(self, names: Sequence[str], masks: Sequence[np.ndarray]) -> str:
        """Of the structures, in words."""
        return ", ".join(f"{name} {self.area(mask)}" for name, mask in zip(names, masks))

    def area(self, mask: np.ndarray) -> str:
        """Of a mask of the part."""
        count = np.count_nonzero(mask)
        return f"{count * np.prod(self.grid.spacing_mm):.0f} mm²" if self.grid.physical else f"{count} pixels"


def make_panels(
    folders: Folders,
    dataset: Mapping[str, Any],
    trainers: Sequence[Mapping[str, str]],
    case: str,
    fold: str,
    *,
    n_bins: int,
    channel: int,
) -> CasePanels:
    """Read a case of every method and draw the slice where they differ most.

    One method's probabilities are in memory at a time. Where they are gone, the slice is one of those that were kept.

    Raises:
        UserError: Not even the ground truth can be read.
    """
    result, opened = CasePanels(case), {}
    for trainer in trainers:
        try:
            opened[trainer["name"]] = folders.get(trainer["name"], fold)
        except UserError as error:
            result.problems.append(str(error))
    if not opened:
        raise UserError(result.problems[0])
    folder = next(iter(opened.values()))
    truth = read_truth(folder, case)
    result.has_ignored = not truth.valid.all()

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except UserError as error:
            result.problems.append(str(error))
            return None

    image = _image(opened.values(), case, channel, truth, result.problems)
    segmentations = {
        name: found
        for name, where in opened.items()
        if (found := attempt(read_prediction, where, case, truth.labels.shape)) is not None
    }
    axis = slicing_axis(truth.geometry.spacing_mm, folder.plans)
    limits = [set(kept) for where in opened.values() if (kept := kept_slices(where, case, axis)) is not None]
    among = sorted(set.intersection(*limits)) if limits else []
    choice = choose_slice(truth.labels, truth.valid, list(segmentations.values()), axis, among or None)
    view = _view(truth, segmentations, axis, choice.index)
    names = _names(folder, dataset)
    result.caption = _caption(truth, view, choice, channel_name(folder, channel), image is not None)
    result.pictures = _shared(folder, truth, image, view, names, channel_name(folder, channel), case)
    for trainer in trainers:
        name, found = trainer["name"], None
        if name in opened:
            found = attempt(read_confidence, opened[name], case, axis, choice.index, n_bins)
        result.methods[name] = (
            _prediction(folder, truth, image, segmentations.get(name), view, names, trainer["label"]),
            _confidence(folder, truth, found, view, trainer["label"]),
            _reliability(found, trainer["label"]),
        )
    return result


def _image(folders: Iterable[PredictionFolder], case: str, channel: int, truth: Truth, problems: list[str]):
    """The image, from wherever one of the methods' folders leads; the first failure is told where none does."""
    failures = []
    for folder in folders:
        try:
            return read_image(folder, case, channel, truth.labels.shape)
        except UserError as error:
            failures.append(str(error))
    problems.append(failures[0])
    return None


def _names(folder: PredictionFolder, dataset: Mapping[str, Any]) -> list[str]:
    labels = folder.labels
    return [dataset["structures"].get(labels.key(c), labels.names[c]) for c in labels.foreground]


def _view(truth: Truth, segmentations: Mapping[str, np.ndarray], axis: int, index: int) -> _View:
    plane = plane_of(axis, anatomical_axes(truth.geometry) if truth.labels.ndim == 3 else None)
    occupied = plane.cut((truth.labels != 0) & truth.valid, index)
    for segmentation in segmentations.values():
        occupied = occupied | (plane.cut(segmentation, index) != 0)
    box = crop_box(occupied)
    shape = tuple(part.stop - part.start for part in box)
    return _View(plane, index, box, Grid(shape, plane.spacing_mm(truth.geometry.spacing_mm), truth.physical))


def _masks(folder: PredictionFolder, labels: np.ndarray) -> list[np.ndarray]:
    return [folder.labels.mask(labels, channel) for channel in folder.labels.foreground]


def _caption(truth: Truth, view: _View, choice, channel: str, has_image: bool) -> str:
    total = truth.labels.shape[view.plane.axis]
    height, width = view.grid.size_mm
    unit = "mm" if truth.physical else "pixels"
    parts = [f"Shown {choice.reason}: slice {choice.index + 1} of {total}"]
    if total == 1:
        parts = ["The case has one slice"]
    if choice.n_differing:
        parts[0] += f" ({choice.n_differing:,} voxels on which the methods do not agree)"
    parts.append(view.plane.description)
    cropped = view.grid.shape != view.plane.cut(truth.labels, view.index).shape
    parts.append(f"{'part of' if cropped else 'all of'} the slice, {width:.0f} × {height:.0f} {unit}")
    if has_image:
        parts.append(f"{channel}, window from the 1st to the 99th percentile of what is shown")
    return "; ".join(parts) + "."


def _shared(folder, truth: Truth, image, view: _View, names, channel: str, case: str) -> tuple[Picture, ...]:
    cut = None if image is None else view(image)
    if cut is None:
        first = Picture("Image", "The image is missing.")
    else:
        where = f"{view.plane.name} slice {view.index + 1}".strip()
        alt = f"{channel} of case {case}, {where}, without any label; a scale bar is {view.grid.scale_bar()[0]:g} "
        alt += ("mm" if truth.physical else "pixels") + " long."
        first = view.picture("Image", alt, draw_labels(cut, (), view.grid, edges=view.plane.edges))
    valid = view(truth.valid)
    masks = [mask & valid for mask in _masks(folder, view(truth.labels))]
    alt = f"Ground truth in the same slice: {view.areas(names, masks)}."
    if not valid.all():
        alt += f" {view.area(~valid)} have no ground truth and are striped."
    return first, view.picture("Ground truth", alt, draw_labels(cut, masks, view.grid, ignored=~valid))


def _prediction(folder, truth: Truth, image, segmentation, view: _View, names, label: str) -> Picture:
    if segmentation is None:
        return Picture("Prediction", f"The prediction of {label} is missing.")
    cut, masks = view(segmentation), _masks(folder, view(segmentation))
    wrong = view.area((cut != view(truth.labels)) & view(truth.valid))
    areas = f"{view.areas(names, masks)}; {wrong} differ from the ground truth"
    alt = f"Prediction of {label} in the same slice: {areas}."
    return view.picture("Prediction", alt, draw_labels(None if image is None else view(image), masks, view.grid))


def _confidence(folder, truth: Truth, found, view: _View, label: str) -> Picture:
    if found is None:
        return Picture("Confidence", f"The confidence of {label} is missing: no probabilities.")
    values = view.flat(found.plane)
    valid = view(truth.valid)
    masks = [mask & valid for mask in _masks(folder, view(truth.labels))]
    inside = values[np.logical_or.reduce(masks)] if masks else values[:0]
    alt = f"Confidence of {label} in the same slice: "
    if inside.size:
        alt += f"mean {inside.mean():.2f} and lowest {inside.min():.2f} inside the structures; "
    share = np.mean(values[valid] < _SURE) * 100 if valid.any() else 0.0
    alt += f"below {_SURE:g} in {share:.1f} % of what is shown. Outlines are the ground truth's."
    return view.picture("Confidence", alt, draw_confidence(values, masks, view.grid, ignored=~valid))


def _reliability(found, label: str) -> Picture:
    if found is None:
        return Picture("Reliability", f"The reliability of {label} is missing: no probabilities.")
    stats = found.foreground
    if not stats.n_voxels:
        return Picture("Reliability", "The case has no foreground, so there is no reliability.")
    alt = f"Reliability of {label} on the foreground of the whole case: {reliability_text(stats)}."
    return Picture("Reliability", alt, data_uri(reliability_svg(stats), ".svg"), 222, 272)
