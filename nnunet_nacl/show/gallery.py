"""The gallery: which cases are shown, and the pictures of each: the same cases and slices for all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.companion_files import read_image
from nnunet_nacl.cases.kept_slices import slicing_axis
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.show.case_files import (
    channel_name,
    kept_slices,
    open_folder,
    read_confidence,
    read_prediction,
    read_truth,
)
from nnunet_nacl.show.drawing import draw_confidence, draw_labels
from nnunet_nacl.show.reliability import reliability_svg, reliability_text
from nnunet_nacl.show.slices import Choice, View, anatomical_axes, choose_slice, plane_of
from nnunet_nacl.show.templating import data_uri

_RANKINGS = (
    ("Dice", ("best mean Dice", "median mean Dice", "worst mean Dice")),
    ("ECE:foreground", ("lowest ECE", "median ECE", "highest ECE")),
)
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
class GalleryCase:
    """A case: why it is shown, its pictures, and of each method label, scores, prediction, confidence, reliability."""

    case: str
    fold: str
    reasons: tuple[str, ...]
    caption: str = ""
    pictures: tuple[Picture, ...] = ()
    has_ignored: bool = False
    methods: list[tuple[str, str, tuple[Picture, ...]]] = field(default_factory=list)


@dataclass(frozen=True)
class Gallery:
    """The cases of one data set, and what is missing."""

    dataset: str
    structures: list[str]
    cases: list[GalleryCase]
    problems: list[str] = field(default_factory=list)


def pick_cases(dataset: Mapping[str, Any], trainers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Cases to show, with the reasons: best, median and worst by mean Dice and by foreground ECE.

    Cases are ordered by the mean over all methods, so that none of them has chosen. A case in which a method has no
    value is left out of that order.
    """
    picked: dict[str, list[str]] = {}
    for column, reasons in _RANKINGS:
        values = dataset["values"].get(column)
        if values is None:
            continue
        mean = np.array([values[trainer] for trainer in trainers], dtype=float).mean(axis=0)  # None becomes NaN
        order = np.argsort(-mean if column == "Dice" else mean, kind="stable")
        order = order[np.isfinite(mean[order])]
        for place, reason in zip((0, (len(order) - 1) // 2, -1), reasons if len(order) else ()):
            picked.setdefault(dataset["cases"][order[place]], []).append(reason)
    return {case: tuple(reasons) for case, reasons in picked.items()}


def make_gallery(
    dataset: Mapping[str, Any],
    trainers: Sequence[Mapping[str, str]],
    *,
    n_bins: int,
    channel: int = 0,
) -> Gallery:
    """Read the picked cases of a data set and draw them.

    One method's probabilities are in memory at a time.

    Args:
        dataset: Of comparison.json.
        trainers: Of comparison.json.
        n_bins: Confidence bins of a case's reliability.
        channel: Image channel.

    Returns:
        The gallery; what could not be read is in its problems.
    """
    folder, names = cache(partial(open_folder, dataset)), [trainer["name"] for trainer in trainers]
    cases: list[GalleryCase] = []
    problems: list[str] = []
    for case, reasons in pick_cases(dataset, names).items():
        shown = GalleryCase(case, dataset["case_fold"].get(case, ""), reasons)
        missing: list[str] = []
        try:
            drawn = _draw(shown, folder, dataset, trainers, missing, n_bins=n_bins, channel=channel)
        except UserError as error:
            drawn, missing = {}, [str(error)]
        problems += missing
        for name, trainer in zip(names, trainers):
            shown.methods.append((trainer["label"], _scores(dataset, name, case), drawn.get(name, ())))
        cases.append(shown)
    return Gallery(dataset["name"], list(dataset["structures"].values()), cases, list(dict.fromkeys(problems)))


def _scores(dataset: Mapping[str, Any], trainer: str, case: str) -> str:
    i = dataset["cases"].index(case)
    parts = []
    for column, title in (("Dice", "Dice"), ("ECE:foreground", "ECE")):
        value = dataset["values"][column][trainer][i] if column in dataset["values"] else None
        parts.append(f"{title} {'undefined' if value is None else f'{value:.3f}'}")
    return ", ".join(parts)


def _draw(
    shown: GalleryCase,
    folder_of: Callable[[str, str], PredictionFolder],
    dataset: Mapping[str, Any],
    trainers: Sequence[Mapping[str, str]],
    problems: list[str],
    *,
    n_bins: int,
    channel: int,
) -> dict[str, tuple[Picture, ...]]:
    """Draw the slice of a case where the methods differ most; by trainer, the pictures that are its own.

    Where probabilities are gone, the slice is one of those that were kept. What could not be read joins ``problems``;
    UserError if not even the ground truth can.
    """

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except UserError as error:
            problems.append(str(error))
            return None

    case, found = shown.case, {t["name"]: attempt(folder_of, t["name"], shown.fold) for t in trainers}
    opened = {name: folder for name, folder in found.items() if folder}
    if not opened:
        raise UserError(problems[0])
    folder = next(iter(opened.values()))
    truth = read_truth(folder, case)
    labels, shape, ignored = truth.labels, truth.truth.shape, truth.labels.ignore_label
    valid = np.ones(shape, dtype=bool) if ignored is None else truth.truth != ignored
    image = _image(opened.values(), case, channel, shape, problems)
    predicted = {name: attempt(read_prediction, where, case, shape) for name, where in opened.items()}
    segmentations = [found for found in predicted.values() if found is not None]
    axis = slicing_axis(truth.spacing_mm, folder.plans)
    limits = [set(kept) for where in opened.values() if (kept := kept_slices(where, case, axis)) is not None]
    among = sorted(set.intersection(*limits)) if limits else []
    choice = choose_slice(truth.truth, valid, segmentations, axis, among or None)
    plane = plane_of(axis, anatomical_axes(truth.geometry) if len(shape) == 3 else None)
    occupied = plane.cut((truth.truth != 0) & valid, choice.index)
    for segmentation in segmentations:
        occupied = occupied | (plane.cut(segmentation, choice.index) != 0)
    view = View.around(occupied, plane, choice.index, truth.geometry)
    names = [dataset["structures"].get(labels.key(c), labels.names[c]) for c in labels.foreground]
    painter = _Painter(truth, names, view, None if image is None else view(image), view(truth.truth), view(valid))
    shown.has_ignored = not valid.all()
    shown.caption = painter.caption(choice, channel_name(folder, channel))
    shown.pictures = (painter.image(channel_name(folder, channel)), painter.ground_truth())
    pictures: dict[str, tuple[Picture, ...]] = {}
    for trainer in trainers:
        name, label, measured = trainer["name"], trainer["label"], None
        if name in opened:
            measured = attempt(read_confidence, opened[name], case, axis, choice.index, n_bins)
        confidence, foreground = measured or (None, None)
        prediction = painter.prediction(predicted.get(name), label)
        pictures[name] = (prediction, painter.confidence(confidence, label), _reliability(foreground, label))
    return pictures


def _image(
    folders: Iterable[PredictionFolder], case: str, channel: int, shape: Sequence[int], problems: list[str]
) -> np.ndarray | None:
    """The image, from wherever one of the methods' folders leads; else the first failure joins the problems."""
    failures = []
    for folder in folders:
        try:
            return read_image(folder, case, channel, shape)
        except UserError as error:
            failures.append(str(error))
    problems.append(failures[0])
    return None


@dataclass(frozen=True)
class _Painter:
    """Draws what is shown of a case, and says it in words.

    Attributes:
        case: With its ground truth.
        names: Of the structures.
        view: The part of a slice that is shown.
        grey: The image in that part, None where it is missing.
        true: The ground truth there.
        valid: False where there is none.
    """

    case: Case
    names: Sequence[str]
    view: View
    grey: np.ndarray | None
    true: np.ndarray
    valid: np.ndarray

    @property
    def unit(self) -> str:
        return "mm" if self.view.grid.physical else "pixels"

    def masks(self, labels: np.ndarray) -> list[np.ndarray]:
        return [self.case.labels.mask(labels, channel) for channel in self.case.labels.foreground]

    def true_masks(self) -> list[np.ndarray]:
        return [mask & self.valid for mask in self.masks(self.true)]

    def picture(self, title: str, alt: str, png: bytes) -> Picture:
        height, width = self.view.grid.pixels
        return Picture(title, alt, data_uri(png, ".png"), width, height)

    def area(self, mask: np.ndarray) -> str:
        grid, count = self.view.grid, np.count_nonzero(mask)
        return f"{count * np.prod(grid.spacing_mm):.0f} mm²" if grid.physical else f"{count} pixels"

    def areas(self, masks: Sequence[np.ndarray]) -> str:
        return ", ".join(f"{name} {self.area(mask)}" for name, mask in zip(self.names, masks))

    def caption(self, choice: Choice, channel: str) -> str:
        """Which part of which slice is shown, and why."""
        plane, grid, total = self.view.plane, self.view.grid, self.case.truth.shape[self.view.plane.axis]
        height, width = grid.size_mm
        parts = [f"Shown {choice.reason}: slice {choice.index + 1} of {total}"]
        if total == 1:
            parts = ["The case has one slice"]
        if choice.n_differing:
            parts[0] += f" ({choice.n_differing:,} voxels on which the methods do not agree)"
        parts.append(plane.description)
        cropped = grid.shape != plane.cut(self.case.truth, choice.index).shape
        parts.append(f"{'part of' if cropped else 'all of'} the slice, {width:.0f} × {height:.0f} {self.unit}")
        if self.grey is not None:
            parts.append(f"{channel}, window from the 1st to the 99th percentile of what is shown")
        return "; ".join(parts) + "."

    def image(self, channel: str) -> Picture:
        if self.grey is None:
            return Picture("Image", "The image is missing.")
        plane, grid = self.view.plane, self.view.grid
        where = f"{plane.name} slice {self.view.index + 1}".strip()
        alt = f"{channel} of case {self.case.name}, {where}, without any label; "
        alt += f"a scale bar is {grid.scale_bar()[0]:g} {self.unit} long."
        return self.picture("Image", alt, draw_labels(self.grey, (), grid, edges=plane.edges))

    def ground_truth(self) -> Picture:
        masks = self.true_masks()
        alt = f"Ground truth in the same slice: {self.areas(masks)}."
        if not self.valid.all():
            alt += f" {self.area(~self.valid)} have no ground truth and are striped."
        return self.picture("Ground truth", alt, draw_labels(self.grey, masks, self.view.grid, ignored=~self.valid))

    def prediction(self, segmentation: np.ndarray | None, label: str) -> Picture:
        if segmentation is None:
            return Picture("Prediction", f"The prediction of {label} is missing.")
        cut = self.view(segmentation)
        masks, wrong = self.masks(cut), self.area((cut != self.true) & self.valid)
        alt = f"Prediction of {label} in the same slice: {self.areas(masks)}; {wrong} differ from the ground truth."
        return self.picture("Prediction", alt, draw_labels(self.grey, masks, self.view.grid))

    def confidence(self, stored: np.ndarray | None, label: str) -> Picture:
        if stored is None:
            return Picture("Confidence", f"The confidence of {label} is missing: no probabilities.")
        values, masks = self.view.flat(stored), self.true_masks()
        inside = values[np.logical_or.reduce(masks)] if masks else values[:0]
        alt = f"Confidence of {label} in the same slice: "
        if inside.size:
            alt += f"mean {inside.mean():.2f} and lowest {inside.min():.2f} inside the structures; "
        share = np.mean(values[self.valid] < _SURE) * 100 if self.valid.any() else 0.0
        alt += f"below {_SURE:g} in {share:.1f} % of what is shown. Outlines are the ground truth's."
        png = draw_confidence(values, masks, self.view.grid, ignored=~self.valid)
        return self.picture("Confidence", alt, png)


def _reliability(stats: BinStats | None, label: str) -> Picture:
    if stats is None:
        return Picture("Reliability", f"The reliability of {label} is missing: no probabilities.")
    if not stats.n_voxels:
        return Picture("Reliability", "The case has no foreground, so there is no reliability.")
    alt = f"Reliability of {label} on the foreground of the whole case: {reliability_text(stats)}."
    return Picture("Reliability", alt, data_uri(reliability_svg(stats), ".svg"), 222, 272)
