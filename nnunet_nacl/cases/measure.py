"""Measures a case in one pass over its probabilities, and estimates from a record what a map would change."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.calibration.log_odds import is_label, probabilities
from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.cases.case import MASKS, Case, EvaluationSettings, Labels, Truth
from nnunet_nacl.cases.findings import Components, label_components
from nnunet_nacl.cases.probabilities import Box
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.sample import MASK_BITS, Sample, draw_sample, pack
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.expected_dice import count_expected, count_probabilities, dice_of, largest_dice
from nnunet_nacl.metrics.overlap import assd, bounding_box, count_overlap, dilated_mask, hausdorff, surface_distances
from nnunet_nacl.metrics.voxel_uncertainty import (
    Place,
    confidence,
    label_confidence,
    least_certain_place,
    mean_uncertainty,
    normalised_entropy,
)
from nnunet_nacl.quality.recall import THRESHOLDS, count_addable, sensitive_labels

_OF_NETWORKS = "mutual_information"
"""The map that compares networks."""

_OUTSIDE = {"confidence": 1.0, "entropy": 0.0, _OF_NETWORKS: 0.0}
"""Value of each map of uncertainty outside nnU-Net's crop, where all is background for certain."""

MAPS = tuple(_OUTSIDE)

PROBABILITIES = "probabilities"
"""Stands for a map of every class or region: ``probability_<channel>_<name>``."""

FRACTIONAL = "fractional"
"""Stands for the same maps, which of DICOM series become a fractional segmentation instead of parametric maps."""


def choose_maps(wanted: Sequence[str], n_networks: int = 1) -> tuple[str, ...]:
    """Names of the maps to write: those ``wanted``, or all of ``MAPS`` that there can be of so many networks.

    UserError for one that is none of ``MAPS``, ``PROBABILITIES`` and ``FRACTIONAL``, or that compares networks where
    there is one.
    """
    for name in wanted:
        if name not in (there_are := (*MAPS, PROBABILITIES, FRACTIONAL)):
            raise UserError(f"there is no map {name!r}; there are {', '.join(there_are)}.")
        if name == _OF_NETWORKS and n_networks == 1:
            raise UserError(f"the map {name} compares folds: predict with several (`nnunet_nacl predict -f`).")
    return tuple(dict.fromkeys(wanted)) or MAPS[: 2 if n_networks == 1 else 3]


@dataclass(eq=False)
class Views:
    """Where a network is uncertain, voxel by voxel, and labels that miss less; in the axis order of nnU-Net's reader.

    Attributes:
        maps: (*spatial) float32 by name.
        doubt: (*spatial) 1 less the confidence of each voxel; 0 outside nnU-Net's crop.
        place: The voxel where the network is least certain.
        limits: Of each structure, see :func:`~nnunet_nacl.quality.recall.sensitive_labels`; empty for none.
        sensitive: What that makes of the case: (*spatial) label map or (R, *spatial) regions; None without limits.
        by_slice: Of each axis the (C, slices) sums of p (1 - p), the variance of a structure's voxels in each slice.
    """

    maps: dict[str, np.ndarray]
    doubt: np.ndarray
    place: Place | None = None
    limits: Sequence[float] = ()
    sensitive: np.ndarray | None = None
    by_slice: Sequence[np.ndarray] = ()

    @classmethod
    def of(cls, case: Case, maps: Sequence[str], limits: Sequence[float] = ()) -> Views:
        """As they are outside the crop, where no label is added; what compares networks is whole."""
        shape, channels = case.segmentation.shape, _channel_maps(case.labels)
        outside = dict.fromkeys(channels, 0.0) | ({} if case.labels.regions else {channels[0]: 1.0}) | _OUTSIDE
        made = {name: np.full(shape, outside[name], np.float32) for name in names_of_maps(case.labels, maps)}
        if _OF_NETWORKS in made and case.disagreement:
            made[_OF_NETWORKS] = case.disagreement.mutual_information
        labelled = case.labels.channels_of(case.segmentation).copy() if limits else None
        by_slice = [np.zeros((len(channels), n)) for n in shape]
        return cls(made, np.zeros(shape, np.float32), limits=limits, sensitive=labelled, by_slice=by_slice)

    def add(self, where: Box, probs: np.ndarray, raw: np.ndarray, segmentation: np.ndarray, labels: Labels) -> None:
        """Take the (C, *block) probabilities, the network's own, and the (*block) label map of a box of the image."""
        delivered = labels.channels_of(segmentation)
        if self.sensitive is not None:
            at: Any = (..., *where)
            self.sensitive[at] = sensitive_labels(raw, delivered, self.limits, labels.regions)
        self.doubt[where] = 1 - confidence(probs, regions=labels.regions)
        variance = probs * (1 - probs)
        for axis, sums in enumerate(self.by_slice):
            sums[:, where[axis]] += variance.sum(tuple(i for i in range(1, probs.ndim) if i != axis + 1))
        if "confidence" in self.maps:
            self.maps["confidence"][where] = label_confidence(probs, delivered, regions=labels.regions)
        if "entropy" in self.maps:
            self.maps["entropy"][where] = normalised_entropy(probs, regions=labels.regions)
        for name, values in zip(_channel_maps(labels), probs):
            if name in self.maps:
                self.maps[name][where] = values


def names_of_maps(labels: Labels, maps: Sequence[str]) -> list[str]:
    """Names of the images that ``maps``, as :func:`choose_maps` gives them, stand for."""
    names: list[str] = []
    for name in maps:
        names += [name] if name in _OUTSIDE else _channel_maps(labels)
    return list(dict.fromkeys(names))


def _channel_maps(labels: Labels) -> list[str]:
    """Names of the maps of single channels."""
    return [f"probability_{channel}_{plain_name(name)}" for channel, name in enumerate(labels.names)]


def plain_name(structure: str) -> str:
    """The name of a structure as files have it."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", structure).strip("-.")


def measure(
    case: Case,
    calibration: LogOddsMap | None = None,
    views: Views | None = None,
    *,
    settings: EvaluationSettings = EvaluationSettings(),
    with_sample: bool = False,
    findings: Sequence[int] = (),
) -> CaseRecord:
    """The record of a case, without its key, measured block by block. Ignored voxels count nowhere.

    Args:
        case: With its probabilities. What needs a ground truth is measured where there is one.
        calibration: Map that the probabilities are taken through; it changes no label. None leaves them.
        views: Maps of uncertainty, as :meth:`Views.of` begins them, which are filled; None makes none.
        settings: What is measured beside a ground truth.
        with_sample: Draw the sample that calibration is fitted to; it needs a ground truth.
        findings: Channels of the structures whose connected components are listed.

    Raises:
        ValueError: The case has no probabilities, they are not probabilities, or there is nothing to sample.
    """
    network, truth, members = case.probabilities, case.read_truth(settings), case.disagreement
    sums = _Sums(case, truth, settings.n_bins)
    components = [Components(case, channel) for channel in findings]
    for where in network.boxes(network.box if truth is None else None):
        probs, raw = network.under(calibration, where)
        sums.add(where, probs, raw)
        for structure in components:
            structure.add(where, probs)
        if views is not None:
            views.add(where, probs, raw, case.segmentation[where], case.labels)
    if views is not None:
        looked_at = views.doubt, lambda where: network.under(calibration, where)[0]
        views.place = least_certain_place(*looked_at, case.labels.foreground, case.spacing_mm)
    scan: dict[str, Any] = {"unit": case.geometry.unit, "voxel_volume": case.geometry.voxel_size, **sums.means}
    scan["mutual_information"] = members.foreground_mutual_information if members else math.nan
    scan["n_members"] = float(len(case.networks))
    if truth is not None:
        scan |= {"n_changed_voxels": float(sums.n_changed), "largest_label": float(truth.labels.max(initial=0))}
    return CaseRecord(
        case.name,
        _structures(case, truth, sums),
        scan,
        bins={mask: sums.bins[mask] for mask in MASKS if sums.bins},
        addable=None if truth is None else sums.addable,
        sample=_sample(case, truth, settings) if with_sample and truth is not None else None,
        findings=tuple(structure.findings() for structure in components),
        differences=case.differences,
        profile=case.profile,
        files=case.files,
        made_by=case.made_by,
    )


class _Sums:
    """Sums over the blocks of a case: for its calibration, and from which the quality of its segmentation follows."""

    def __init__(self, case: Case, truth: Truth | None, n_bins: int) -> None:
        self._case, self._truth, self._n_bins, num = case, truth, n_bins, len(case.labels.foreground)
        self.bins, self.n_changed = dict[str, BinStats](), 0
        self.overlap, self.network = np.zeros((3, num)), count_probabilities(np.zeros((num, 0)))
        self.largest = np.zeros(num)
        self.addable = np.zeros((2, num, len(THRESHOLDS)), np.int64)
        self._uncertainty, self._n_predicted = dict.fromkeys(("entropy", "confidence"), 0.0), 0

    def add(self, where: Box, probs: np.ndarray, raw: np.ndarray) -> None:
        """Count the (C, *block) probabilities of a box of the image, and those that the network gave."""
        labels, truth, segmentation = self._case.labels, self._truth, self._case.segmentation[where]
        regions, delivered = labels.regions, labels.channels_of(segmentation)
        valid = None if truth is None or truth.valid is None else truth.valid[where]
        if truth is not None:
            true = labels.channels_of(truth.labels[where])
            self.addable += count_addable(raw, delivered, true, regions, valid)
            masks = {name: mask[where] for name, mask in truth.around.items()}
            options: dict[str, Any] = {"extra_masks": masks, "n_bins": self._n_bins, "valid": valid}
            block = count_masks(probs, true, segmentation=delivered, regions=regions, **options)
            self.bins = {mask: self.bins[mask] + stats if self.bins else stats for mask, stats in block.items()}
            is_changed: Any = labels.label_map(raw) != segmentation
            self.n_changed += int(np.count_nonzero(is_changed if valid is None else is_changed & valid))
        self.overlap += count_expected(probs, delivered, regions=regions, valid=valid)
        first, counted = labels.foreground[0], True if valid is None else valid
        self.network += count_probabilities(raw[first:], valid)
        largest = probs[first:].max(tuple(range(1, probs.ndim)), initial=0, where=counted)
        self.largest = np.maximum(self.largest, largest)
        is_predicted = (segmentation > 0) & counted
        if n := int(np.count_nonzero(is_predicted)):
            means = mean_uncertainty(probs[:, is_predicted], delivered[..., is_predicted], regions=regions)
            for name in self._uncertainty:
                self._uncertainty[name] += means[name] * n
            self._n_predicted += n

    @property
    def means(self) -> dict[str, float]:
        """``entropy`` and ``confidence`` over the segmented structures; NaN where there are none."""
        n = self._n_predicted
        return {name: total / n if n else math.nan for name, total in self._uncertainty.items()}


def _structures(case: Case, truth: Truth | None, sums: _Sums) -> pd.DataFrame:
    """A row for each structure, see :func:`nnunet_nacl.cases.record.table`."""
    expected, n_voxels, _ = sums.overlap
    labels, size, members, rows = case.labels, case.geometry.voxel_size, case.disagreement, []
    for channel in labels.foreground:
        mask = labels.mask(case.segmentation, channel)
        pieces = np.bincount(label_components(mask)[1].ravel())[1:]  # voxels of each
        row = {} if truth is None else _beside_truth(labels.mask(truth.labels, channel), mask, truth.valid, case)
        row |= {"pieces": len(pieces), "largest_piece": pieces.max() / pieces.sum() if len(pieces) else math.nan}
        rows.append(row)
    table = pd.DataFrame(rows, list(labels.structures)).assign(
        volume=n_voxels * size,
        predicted_dice=dice_of(sums.overlap),
        predicted_volume=expected * size,
        max_probability=sums.largest,
        network_volume=sums.network[1].sum(1) * size,
        network_dice=largest_dice(sums.network),
        members_dice=members.dice if members else math.nan,
    )
    if members:
        table = table.assign(**{f"volume {name}": n * size for name, n in zip(case.networks, members.voxels)})
    table = table.astype(float)
    table.insert(0, "name", list(labels.structures.values()))
    return table


def _beside_truth(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None, case: Case) -> dict[str, float]:
    """What compares the segmentation of a structure with its truth."""
    overlap, n_pieces = count_overlap(truth, predicted, valid), int(label_components(truth)[1].max(initial=0))
    if valid is not None:
        truth, predicted = truth & valid, predicted & valid
    box = bounding_box(truth | predicted)
    if box is not None:  # with a voxel around it, so that no axis of an image becomes one of length 1
        box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
        truth, predicted = truth[box], predicted[box]
    in_mm = surface_distances(truth, predicted, case.spacing_mm)
    in_voxels = in_mm if set(case.spacing_mm) == {1.0} else surface_distances(truth, predicted)
    return {
        **{name: getattr(overlap, name.lower()) for name in ("TP", "FP", "FN", "TN", "Dice", "IoU")},
        "HD95_mm": hausdorff(in_mm),
        "HD95_voxels": hausdorff(in_voxels),
        "ASSD_mm": assd(in_mm),
        "true_volume": (overlap.tp + overlap.fn) * case.geometry.voxel_size,
        "true_pieces": n_pieces,
    }


def _sample(case: Case, truth: Truth, settings: EvaluationSettings) -> Sample:
    """The sample of a case."""
    labels = case.labels
    if labels.regions:
        target = pack((labels.mask(truth.labels, channel) for channel in labels.foreground), len(labels.values))
    else:
        target = truth.labels.astype(np.uint8 if len(labels.values) <= 256 else np.uint16)

    def near(is_predicted: np.ndarray) -> np.ndarray:  # by the network, from which the segmentation may differ
        return dilated_mask(is_predicted, settings.dilation_mm, case.spacing_mm)

    return draw_sample(case.probabilities, target, valid=truth.valid, around=truth.around, near=near)


def under(record: CaseRecord, calibration: LogOddsMap) -> CaseRecord:
    """What was measured of a case as it would be under a map, which changes no label; ValueError without a sample.

    Sizes and sums of the network's own probabilities are those of the case; what the map adds to such a sum is
    estimated from the sample (difference estimator; Cochran, Sampling Techniques, 1977, chapter 7). Sums for
    calibration are estimated from the sample alone.
    """
    if (sample := record.sample) is None:
        raise ValueError(f"{record.case}: its record has no sample.")
    voxels, table, size = sample.voxels(), record.structures, record.scan["voxel_volume"]
    odds, weights = voxels.log_odds.double(), voxels.all_weights
    mapped = calibration.to_probabilities(odds, voxels.label)
    change = (mapped - probabilities(odds, sample.regions))[0 if sample.regions else 1 :]
    inside = is_label(voxels.label, sample.num_structures)
    expected, volume, dice = (table[name].to_numpy() for name in ("predicted_volume", "volume", "predicted_dice"))
    expected, n_voxels = expected / size, volume / size
    common = np.where(n_voxels > 0, dice * (expected + n_voxels) / 2, 0.0) + (change * inside @ weights).numpy()
    expected = np.maximum(expected + (change @ weights).numpy(), 0)
    mapped_dice = dice_of(np.stack([expected, n_voxels, np.clip(common, 0, n_voxels)]))
    label, probs = voxels.label.numpy(), mapped.numpy()
    is_predicted = (label > 0).any(0) if sample.regions else label > 0
    chosen = probs[:, is_predicted], label[..., is_predicted]
    means = mean_uncertainty(*chosen, regions=sample.regions, weights=sample.weights[is_predicted])
    n_bins = next(iter(record.bins.values())).n_bins if record.bins else DEFAULT_N_BINS
    return replace(
        record,
        structures=table.assign(predicted_dice=mapped_dice, predicted_volume=expected * size),
        scan=record.scan | means,
        bins=_count_sample(sample, probs, n_bins),
    )


def _count_sample(sample: Sample, probs: np.ndarray, n_bins: int) -> dict[str, BinStats]:
    """Sums of all voxels of a case for every mask, by the (C, n) probabilities of those drawn; unbiased over draws.

    The confidence is that of the label that the network chose, which no map changes. Voxels outside the network's crop
    are background for certain.
    """
    codes, bits, counts = sample.outside.T
    certain = np.zeros((len(probs), len(counts)))
    certain[: 0 if sample.regions else 1] = 1
    bits, kind = np.concatenate([sample.masks, bits.astype(np.uint8)]), bool if sample.regions else np.int64
    truth = np.concatenate([sample.target, codes.astype(sample.target.dtype)])
    label = np.concatenate([sample.label, np.zeros(len(counts), sample.label.dtype)])
    return count_masks(
        np.concatenate([probs, certain], 1),
        sample.unpacked(truth).astype(kind),
        segmentation=sample.unpacked(label).astype(kind),
        extra_masks={name: (bits >> bit & 1).astype(bool) for bit, name in enumerate(MASK_BITS)},
        regions=sample.regions,
        n_bins=n_bins,
        weights=np.concatenate([sample.weights, counts]),
    )
