"""The gallery of the comparison's page: the same few cases and slices for all methods, as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.probabilities import Probabilities
from nnunet_nacl.metrics.voxel_uncertainty import confidence
from nnunet_nacl.runs.sample_files import KeptSlices, find_sample, slices_in
from nnunet_nacl.show.drawing import draw_confidence, draw_labels
from nnunet_nacl.show.page import data_uri
from nnunet_nacl.show.slices import View, choose_slice

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
    gallery = Gallery(dataset.name, list(dataset.structures.values()), [], [])
    values = comparison.values[dataset.name]
    for name, reasons in pick_cases(values).items():
        case = GalleryCase(name, reasons)
        drawn = _draw(case, gallery, dataset, folders, channel)
        for entry, label in comparison.labels.items():
            scores = (
                f"{title} {'undefined' if np.isnan(value := values[column][entry][name]) else f'{value:.3f}'}"
                for column, title in _TITLES.items()
            )
            case.pictures.append((f"{label}: {', '.join(scores)}", drawn.get(entry, [])))
        gallery.cases.append(case)
    gallery.problems[:] = dict.fromkeys(gallery.problems)
    return gallery


def _draw(
    case: GalleryCase,
    gallery: Gallery,
    dataset: Dataset,
    folders: Mapping[tuple[str, str], PredictionFolder | None],
    channel: int,
) -> dict[str, list[Picture]]:
    """Draw the slice of a case where the methods differ most; by entry, the pictures of its predictions.

    Where probabilities are gone, the slice is one of those that were kept. What could not be read joins the problems.
    """
    problems = gallery.problems
    opened: dict[str, PredictionFolder] = {}
    loaded: dict[str, Case] = {}
    for entry in dataset.results:
        with _noted(problems):
            opened[entry] = _folder_of(case.case, dataset, folders, entry)
            read, first = _read_labels(opened[entry], case.case), next(iter(loaded.values()), None)
            if first and read.segmentation.shape != first.truth.shape:
                shapes = f"shape {read.segmentation.shape}, the first method's has {first.truth.shape}."
                raise UserError(f"{entry}, {case.case}: {shapes}")
            loaded[entry] = read
    if not loaded:
        return {}
    name, first = next(iter(loaded.items()))
    folder, truth, labels = opened[name], first.truth, first.labels
    valid = np.ones(truth.shape, bool) if labels.ignore_label is None else truth != labels.ignore_label
    axis = slicing_axis(first.spacing_mm, folder.plans)
    kept = {entry: _kept_slices(opened[entry], case.case, axis, dataset.settings) for entry in loaded}
    limits = [set(slices.index.tolist()) for slices in kept.values() if slices]
    segmentations = [each.segmentation for each in loaded.values()]
    index = choose_slice(truth, valid, segmentations, axis, sorted(set.intersection(*limits)) if limits else None)
    structures = np.any([(truth != 0) & valid, *(segmentation != 0 for segmentation in segmentations)], axis=0)
    view = View.around(np.take(structures, index, axis), axis, index, first.geometry)
    grey, shown = None, "no image"
    with _noted(problems):
        grey = view(read_image(folder, case.case, channel, truth.shape))
        channels = folder.dataset_json.get("channel_names", folder.dataset_json.get("modality", {}))
        shown = str(channels.get(str(channel), f"channel {channel}"))
    (height, width), grid = view.grid.size_mm, view.grid
    size = f"{width:.0f} × {height:.0f} {'mm' if grid.physical else 'pixels'} of it"
    case.caption = ", ".join(filter(None, (view.name(truth.shape[axis]), size, shown)))
    case.has_ignored = not valid.all()

    def masks_of(label_map: np.ndarray) -> list[np.ndarray]:
        return [labels.mask(label_map, c) for c in labels.foreground]

    def area(mask: np.ndarray) -> str:
        count = np.count_nonzero(mask)
        return f"{count * np.prod(grid.spacing_mm):.0f} mm²" if grid.physical else f"{count} pixels"

    def picture(title: str, words: str, masks: Sequence[np.ndarray], png: bytes) -> Picture:
        areas = ", ".join(f"{structure} {area(mask)}" for structure, mask in zip(gallery.structures, masks))
        alt, (rows, columns) = f"{title}, {case.case}{words}: {areas}.", grid.pixels
        return Picture(title, alt, data_uri(png, ".png"), columns, rows)

    true_labels, ignored = view(truth), ~view(valid)
    true_masks = [mask & ~ignored for mask in masks_of(true_labels)]
    png = draw_labels(grey, true_masks, grid, ignored=ignored, edges=view.edges)
    case.pictures.append(("Ground truth", [picture("Ground truth", "", true_masks, png)]))
    drawn = {}
    for entry, each in loaded.items():
        label_map = view(each.segmentation)
        masks, wrong = masks_of(label_map), area((label_map != true_labels) & ~ignored)
        png = draw_labels(grey, masks, grid)
        drawn[entry] = [picture("Prediction", f", {wrong} differ from the ground truth", masks, png)]
        confidence_map = Picture("Confidence", "The confidence is missing: no probabilities.")
        with _noted(problems):
            sure = view.flat(_confidence(opened[entry], case.case, axis, index, kept[entry]))
            inside = sure[np.any(true_masks, axis=0)]
            mean = f", {inside.mean():.2f} on average in the structures" if inside.size else ""
            png = draw_confidence(sure, true_masks, grid, ignored=ignored)
            confidence_map = picture("Confidence", f"{mean}, outlines of the ground truth", true_masks, png)
        drawn[entry].append(confidence_map)
    return drawn


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """What cannot be read is noted, and the rest is shown."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


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
    probs = np.take(folder.load(folder.files(case)).probabilities.whole(), index, axis=axis + 1)
    return confidence(np.ascontiguousarray(probs), regions=folder.labels.regions, check_values=False)


def _kept_slices(folder: PredictionFolder, case: str, axis: int, settings: EvaluationSettings) -> KeptSlices | None:
    """The slices that were kept of a case whose probabilities are gone."""
    files = folder.files(case)
    if files.probabilities.is_file() or folder.treatment is not None:
        return None
    with suppress(OSError):
        sample = find_sample(files, folder.labels, settings)
        kept = slices_in(sample) if sample else None
        return kept if kept and kept.axis == axis and len(kept.index) else None
    return None
