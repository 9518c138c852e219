"""The gallery of the comparison's page: the same few cases and slices for all methods, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_nacl.comparison.alignment import Dataset
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.documents.results import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.case import Case
from nnunet_nacl.io.companion_files import read_image
from nnunet_nacl.io.geometry import slicing_axis
from nnunet_nacl.io.labels import Labels
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.probabilities import Probabilities
from nnunet_nacl.metrics.voxel_uncertainty import confidence
from nnunet_nacl.runs.sample_files import KeptSlices, find_sample, slices_in
from nnunet_nacl.show.drawing import draw_confidence, draw_labels
from nnunet_nacl.show.slices import Plane, View, choose_slice
from nnunet_nacl.show.templating import data_uri

# By which column cases are ordered, from good to bad; where in that order a case is shown; and what it is called.
_SHOWN = (
    ("Dice", 0.5, "median mean Dice"),
    ("Dice", 1.0, "worst mean Dice"),
    ("ECE:foreground", 1.0, "highest ECE"),
)
_TITLES = {"Dice": "Dice", "ECE:foreground": "ECE"}


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
    """A case: why it is shown, where its slice lies, and under a heading each its pictures, the truth's first."""

    case: str
    reasons: list[str]
    caption: str = ""
    has_ignored: bool = False
    pictures: list[tuple[str, list[Picture]]] = field(default_factory=list)


@dataclass(frozen=True)
class Gallery:
    """The cases of one data set, and what could not be read."""

    dataset: str
    structures: list[str]
    cases: list[GalleryCase]
    problems: list[str]


def pick_cases(values: pd.DataFrame) -> dict[str, list[str]]:
    """Cases to show, with the reasons: median and worst by mean Dice, worst by foreground ECE.

    Cases are ordered by the mean over all methods, so that none of them has chosen. A case in which a method has no
    value is left out of that order.

    Args:
        values: Of a data set, as :attr:`~nnunet_nacl.comparison.comparison.Comparison.values` has them.
    """
    picked: dict[str, list[str]] = {}
    for column, place, reason in _SHOWN:
        mean = values[column].mean(axis=1, skipna=False).dropna()
        order = mean.sort_values(ascending=column != "Dice", kind="stable").index
        if len(order):
            picked.setdefault(order[int(place * (len(order) - 1))], []).append(reason)
    return picked


def make_gallery(
    comparison: Comparison, dataset: Dataset, folders: Mapping[tuple[str, str], PredictionFolder | None], channel: int
) -> Gallery:
    """Read the picked cases of a data set and draw them; one method's probabilities are in memory at a time.

    Args:
        comparison: What was computed.
        dataset: One of its data sets.
        folders: Predictions by entry and fold; None where a document is all that is known of them.
        channel: Image channel.

    Returns:
        The gallery; what could not be read is in its problems.
    """
    cases: list[GalleryCase] = []
    problems: list[str] = []
    values = comparison.values[dataset.name]
    for name, reasons in pick_cases(values).items():
        case = GalleryCase(name, reasons)
        drawn = _draw(case, dataset, folders, problems, channel)
        for entry, label in comparison.labels.items():
            scores = (
                f"{title} {'undefined' if np.isnan(value := values[column][entry][name]) else f'{value:.3f}'}"
                for column, title in _TITLES.items()
            )
            case.pictures.append((f"{label}: {', '.join(scores)}", drawn.get(entry, [])))
        cases.append(case)
    return Gallery(dataset.name, list(dataset.structures.values()), cases, list(dict.fromkeys(problems)))


def _draw(
    case: GalleryCase,
    dataset: Dataset,
    folders: Mapping[tuple[str, str], PredictionFolder | None],
    problems: list[str],
    channel: int,
) -> dict[str, list[Picture]]:
    """Draw the slice of a case where the methods differ most; by entry, the pictures that are its own.

    Where probabilities are gone, the slice is one of those that were kept. What could not be read joins ``problems``.
    """

    def attempt(function, *arguments, **keywords):
        try:
            return function(*arguments, **keywords)
        except UserError as error:
            problems.append(str(error))
            return None

    opened = {name: attempt(_folder_of, case.case, dataset, folders, name) for name in dataset.results}
    loaded = {name: attempt(_read_labels, folder, case.case) for name, folder in opened.items() if folder}
    shape = next((data.truth.shape for data in loaded.values() if data), ())
    for name, data in loaded.items():
        if data and data.segmentation.shape != shape:
            problems.append(f"{name}, {case.case}: shape {data.segmentation.shape}, the first method's has {shape}.")
    loaded = {name: data for name, data in loaded.items() if data and data.segmentation.shape == shape}
    if not loaded:
        return {}
    name, data = next(iter(loaded.items()))
    folder, truth, labels = opened[name], data.truth, data.labels
    valid = np.ones(shape, bool) if labels.ignore_label is None else truth != labels.ignore_label
    axis = slicing_axis(data.spacing_mm, folder.plans)
    kept = {name: _kept_slices(opened[name], case.case, axis, dataset.settings) for name in loaded}
    limits = [set(slices.index.tolist()) for slices in kept.values() if slices]
    among = sorted(set.intersection(*limits)) if limits else []
    segmentations = [data.segmentation for data in loaded.values()]
    index = choose_slice(truth, valid, segmentations, axis, among or None)
    plane = Plane.across(axis, data.geometry)
    structures = np.any([(truth != 0) & valid, *(segmentation != 0 for segmentation in segmentations)], axis=0)
    view = View.around(plane.cut(structures, index), plane, index, data.geometry)
    image = attempt(read_image, folder, case.case, channel, shape)
    canvas = _Canvas(case.case, labels, list(dataset.structures.values()), view, None if image is None else view(image))
    channels = folder.dataset_json.get("channel_names", folder.dataset_json.get("modality", {}))
    shown = str(channels.get(str(channel), f"channel {channel}")) if image is not None else "no image"
    case.caption = ", ".join(filter(None, (view.name(shape[axis]), canvas.size, shown)))
    case.has_ignored = not valid.all()
    true_labels, ignored = view(truth), ~view(valid)
    true_masks = [mask & ~ignored for mask in canvas.masks(true_labels)]
    png = draw_labels(canvas.grey, true_masks, view.grid, ignored=ignored, edges=plane.edges)
    case.pictures.append(("Ground truth", [canvas.picture("Ground truth", "", true_masks, png)]))
    drawn = {}
    for name, data in loaded.items():
        label_map = view(data.segmentation)
        masks = canvas.masks(label_map)
        wrong = f", {canvas.area((label_map != true_labels) & ~ignored)} differ from the ground truth"
        drawn[name] = [canvas.picture("Prediction", wrong, masks, draw_labels(canvas.grey, masks, view.grid))]
        values = attempt(_confidence, opened[name], case.case, axis, index, kept[name])
        if values is None:
            drawn[name].append(Picture("Confidence", "The confidence is missing: no probabilities."))
            continue
        inside = view.flat(values)[np.any(true_masks, axis=0)]
        mean = f", {inside.mean():.2f} on average in the structures" if inside.size else ""
        png = draw_confidence(view.flat(values), true_masks, view.grid, ignored=ignored)
        drawn[name].append(canvas.picture("Confidence", f"{mean}, outlines of the ground truth", true_masks, png))
    return drawn


@dataclass(frozen=True)
class _Canvas:
    """What the pictures of a case share: its name, its structures, and the part of a slice with the image in it."""

    case: str
    labels: Labels
    names: list[str]
    view: View
    grey: np.ndarray | None

    @property
    def size(self) -> str:
        height, width = self.view.grid.size_mm
        return f"{width:.0f} × {height:.0f} {'mm' if self.view.grid.physical else 'pixels'} of it"

    def masks(self, label_map: np.ndarray) -> list[np.ndarray]:
        return [self.labels.mask(label_map, c) for c in self.labels.foreground]

    def area(self, mask: np.ndarray) -> str:
        grid, count = self.view.grid, np.count_nonzero(mask)
        return f"{count * np.prod(grid.spacing_mm):.0f} mm²" if grid.physical else f"{count} pixels"

    def picture(self, title: str, words: str, masks: Sequence[np.ndarray], png: bytes) -> Picture:
        areas = ", ".join(f"{name} {self.area(mask)}" for name, mask in zip(self.names, masks))
        height, width = self.view.grid.pixels
        return Picture(title, f"{title}, {self.case}{words}: {areas}.", data_uri(png, ".png"), width, height)


def _folder_of(
    case: str, dataset: Dataset, folders: Mapping[tuple[str, str], PredictionFolder | None], name: str
) -> PredictionFolder:
    """Where a method's prediction of a case lies; an entry without folds has one place for all."""
    fold = dataset.case_fold.get(case, "")
    folder = folders[name, fold] if (name, fold) in folders else folders[name, ""]
    if folder is None:
        result = dataset.results[name][dataset.cases.index(case)]
        folder = PredictionFolder.open(Path(result.probabilities_file).parent, Path(result.reference_file).parent)
    return folder


def _read_labels(folder: PredictionFolder, case: str) -> Case:
    """A case with its truth and its segmentation, which probabilities give where there is no file, or a treatment."""
    files = folder.files(case)
    derived = files.segmentation is None or folder.treatment is not None
    return replace(folder.load(files, probabilities=derived), probabilities=Probabilities())  # they may be large


def _confidence(folder: PredictionFolder, case: str, axis: int, index: int, kept: KeptSlices | None) -> np.ndarray:
    """(rows, columns) confidence in a slice as stored; UserError where there are no probabilities of it any more."""
    if kept and (plane := kept.confidence(index)) is not None:
        return plane
    probs = folder.load(folder.files(case)).probabilities.whole()
    plane = np.ascontiguousarray(np.take(probs, index, axis=axis + 1))
    return confidence(plane, regions=folder.labels.regions, check_values=False)


def _kept_slices(folder: PredictionFolder, case: str, axis: int, settings: EvaluationSettings) -> KeptSlices | None:
    """The slices that were kept of a case whose probabilities are gone."""
    files = folder.files(case)
    if files.probabilities.is_file() or folder.treatment is not None:
        return None
    try:
        sample = find_sample(files, folder.labels, settings)
    except OSError:
        return None
    kept = slices_in(sample) if sample else None
    return kept if kept and kept.axis == axis and len(kept.index) else None
