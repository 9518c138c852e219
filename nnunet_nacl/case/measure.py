"""Measures a case in one pass over its probabilities, and estimates from a record what a map would change."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from nnunet_nacl.case.case import MASKS, Case, EvaluationSettings, Labels, Truth
from nnunet_nacl.case.findings import Components, label_components
from nnunet_nacl.case.probabilities import Box, CalibratedProbabilities
from nnunet_nacl.case.record import CaseRecord
from nnunet_nacl.case.sample import MASK_BITS, Sample, draw_sample, pack, unpack
from nnunet_nacl.errors import UserError
from nnunet_nacl.numbers.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.numbers.counting import count_masks
from nnunet_nacl.numbers.expected_dice import ExpectedOverlap, ProbabilityHistogram, count_expected
from nnunet_nacl.numbers.log_odds_map import LogOddsMap, is_label, probabilities
from nnunet_nacl.numbers.overlap import assd, bounding_box, count_overlap, dilated_mask, hausdorff, surface_distances
from nnunet_nacl.numbers.recall import THRESHOLDS, count_addable, sensitive_labels
from nnunet_nacl.numbers.voxel_uncertainty import (
    Place,
    confidence,
    label_confidence,
    least_certain_place,
    mean_uncertainty,
    normalised_entropy,
)

_OUTSIDE = {"confidence": 1.0, "entropy": 0.0}
"""Value of a map of uncertainty outside nnU-Net's crop, where all is background for certain."""

_OF_NETWORKS = "mutual_information"
"""The map that compares networks; 0 outside the crop."""

MAPS = (*_OUTSIDE, _OF_NETWORKS)

PROBABILITIES = "probabilities"
"""Stands for a map of every class or region: ``probability_<channel>_<name>``."""

FRACTIONAL = "fractional"
"""Stands for the same maps, which of DICOM series become a fractional segmentation instead of parametric maps."""


def choose_maps(wanted: Sequence[str], n_networks: int = 1) -> tuple[str, ...]:
    """Names of the maps to write; UserError for one that there is not, or that compares networks where there is one.

    Args:
        wanted: Some of ``MAPS``, ``PROBABILITIES`` or ``FRACTIONAL``; none for all of ``MAPS`` that there can be.
        n_networks: How many are averaged.
    """
    for name in wanted:
        if name not in (there_are := (*MAPS, PROBABILITIES, FRACTIONAL)):
            raise UserError(f"there is no map {name!r}; there are {', '.join(there_are)}.")
        if name == _OF_NETWORKS and n_networks == 1:
            raise UserError(f"the map {name} compares folds: predict with several (nnunet_nacl predict -f).")
    return tuple(dict.fromkeys(wanted)) or MAPS[: 2 if n_networks == 1 else 3]


@dataclass(eq=False)
class Views:
    """Where a network is uncertain, voxel by voxel, and labels that miss less; in the axis order of nnU-Net's reader.

    Attributes:
        maps: (*spatial) float32 by name.
        doubt: (*spatial) 1 less the confidence of each voxel; 0 outside nnU-Net's crop.
        place: The voxel where the network is least certain.
        limits: Of each structure, see :func:`~nnunet_nacl.numbers.recall.sensitive_labels`; empty for none.
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
        shape, made = case.segmentation.shape, dict[str, np.ndarray]()
        for name in maps:
            if name == _OF_NETWORKS:
                of_networks = case.disagreement
                made[name] = of_networks.mutual_information if of_networks else np.zeros(shape, np.float32)
            elif name in (PROBABILITIES, FRACTIONAL):
                background = "" if case.labels.regions else _channel_maps(case.labels)[0]
                made |= {shown: np.full(shape, shown == background, np.float32) for shown in _channel_maps(case.labels)}
            else:
                made[name] = np.full(shape, _OUTSIDE[name], np.float32)
        labelled = case.labels.channels_of(case.segmentation).copy() if limits else None
        by_slice = [np.zeros((len(case.labels.names), n)) for n in shape]
        return cls(made, np.zeros(shape, np.float32), limits=limits, sensitive=labelled, by_slice=by_slice)

    def add(self, where: Box, probs: np.ndarray, raw: np.ndarray, segmentation: np.ndarray, labels: Labels) -> None:
        """Take the (C, *block) probabilities, the network's own, and the (*block) label map of a box of the image."""
        if self.sensitive is not None:
            at: Any = (..., *where)
            self.sensitive[at] = sensitive_labels(raw, labels.channels_of(segmentation), self.limits, labels.regions)
        self.doubt[where] = 1 - confidence(probs, regions=labels.regions)
        variance = probs * (1 - probs)
        for axis, sums in enumerate(self.by_slice):
            sums[:, where[axis]] += variance.sum(tuple(i for i in range(1, probs.ndim) if i != axis + 1))
        if "confidence" in self.maps:
            channels = labels.channels_of(segmentation)
            self.maps["confidence"][where] = label_confidence(probs, channels, regions=labels.regions)
        if "entropy" in self.maps:
            self.maps["entropy"][where] = normalised_entropy(probs, regions=labels.regions)
        for channel, name in enumerate(_channel_maps(labels)):
            if name in self.maps:
                self.maps[name][where] = probs[channel]


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
    """Measure a case, block by block. Ignored voxels count nowhere.

    Args:
        case: With its probabilities. What needs a ground truth is measured where there is one.
        calibration: Map that the probabilities are taken through; it changes no label. None leaves them.
        views: Maps of uncertainty, as :meth:`Views.of` begins them, which are filled; None makes none.
        settings: What is measured beside a ground truth.
        with_sample: Draw the sample that calibration is fitted to; it needs a ground truth.
        findings: Channels of the structures whose connected components are listed.

    Returns:
        The record, without its key.

    Raises:
        ValueError: The case has no probabilities, they are not probabilities, or there is nothing to sample.
    """
    network, truth, members = case.probabilities, case.read_truth(settings), case.disagreement
    source = network if calibration is None else CalibratedProbabilities(network, calibration)
    near = None if truth is None else dilated_mask(case.segmentation != 0, settings.dilation_mm, case.spacing_mm)
    sums = _Sums(case, truth, near, settings.n_bins)
    components = [Components(case, channel) for channel in findings]
    for where in source.boxes(source.box if truth is None else None):
        probs, raw = source.beside_network(where)
        sums.add(where, probs, raw)
        for structure in components:
            structure.add(where, probs)
        if views is not None:
            views.add(where, probs, raw, case.segmentation[where], case.labels)
    if views is not None:
        views.place = least_certain_place(views.doubt, source.in_box, case.labels.foreground, case.spacing_mm)
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
        made_by=case.made_by,
    )


class _Sums:
    """Sums over the blocks of a case: for its calibration, and from which the quality of its segmentation follows."""

    def __init__(self, case: Case, truth: Truth | None, near: Any, n_bins: int) -> None:
        self._case, self._truth, self._n_bins, num = case, truth, n_bins, len(case.labels.foreground)
        self._masks = {} if truth is None else truth.around | {"near": near}
        self.bins, self.n_changed = dict[str, BinStats](), 0
        self.overlap = ExpectedOverlap(np.zeros(num), np.zeros(num, np.int64), np.zeros(num))
        self.network = ProbabilityHistogram.of(np.zeros((num, 0)))
        self.largest = np.zeros(num)
        self.addable = np.zeros((2, num, len(THRESHOLDS)), np.int64)
        self._uncertainty, self._n_predicted = dict.fromkeys(("entropy", "confidence"), 0.0), 0

    def add(self, where: Box, probs: np.ndarray, raw: np.ndarray) -> None:
        """Count the (C, *block) probabilities of a box of the image, and those that the network gave."""
        labels, truth, segmentation = self._case.labels, self._truth, self._case.segmentation[where]
        valid = None if truth is None or truth.valid is None else truth.valid[where]
        delivered = labels.channels_of(segmentation)
        if truth is not None:
            true = labels.channels_of(truth.labels[where])
            self.addable += count_addable(raw, delivered, true, labels.regions, valid)
            block = count_masks(
                probs,
                true,
                segmentation=delivered,
                extra_masks={name: mask[where] for name, mask in self._masks.items()},
                regions=labels.regions,
                n_bins=self._n_bins,
                valid=valid,
            )
            self.bins = {mask: self.bins[mask] + stats if self.bins else stats for mask, stats in block.items()}
            is_changed: Any = labels.label_map(raw) != segmentation
            self.n_changed += int(np.count_nonzero(is_changed if valid is None else is_changed & valid))
        self.overlap += count_expected(probs, delivered, regions=labels.regions, valid=valid)
        first = labels.foreground[0]
        self.network += ProbabilityHistogram.of(raw[first:], valid)
        counted = True if valid is None else valid
        largest = probs[first:].max(tuple(range(1, probs.ndim)), initial=0, where=counted)
        self.largest = np.maximum(self.largest, largest)
        is_predicted = (segmentation > 0) & counted
        if n := int(np.count_nonzero(is_predicted)):
            means = mean_uncertainty(probs[:, is_predicted], delivered[..., is_predicted], regions=labels.regions)
            for name in self._uncertainty:
                self._uncertainty[name] += means[name] * n
            self._n_predicted += n

    @property
    def means(self) -> dict[str, float]:
        """``entropy`` and ``confidence`` over the segmented structures; NaN where there are none."""
        n = self._n_predicted
        return {name: total / n if n else math.nan for name, total in self._uncertainty.items()}


def _structures(case: Case, truth: Truth | None, sums: _Sums) -> pd.DataFrame:
    """A row for each structure, see :func:`nnunet_nacl.case.record.table`."""
    labels, size, members = case.labels, case.geometry.voxel_size, case.disagreement
    rows, dice, network_dice = dict[str, dict[str, Any]](), sums.overlap.dice, sums.network.largest_dice
    for i, channel in enumerate(labels.foreground):
        mask = labels.mask(case.segmentation, channel)
        pieces = np.bincount(label_components(mask)[1].ravel())[1:]  # voxels of each
        row: dict[str, Any] = {"name": labels.names[channel]}
        if truth is not None:
            row |= _beside_truth(labels.mask(truth.labels, channel), mask, truth.valid, case)
        row |= {
            "volume": float(sums.overlap.chosen[i] * size),
            "pieces": len(pieces),
            "largest_piece": float(pieces.max() / pieces.sum()) if len(pieces) else math.nan,
            "predicted_dice": float(dice[i]),
            "predicted_volume": float(sums.overlap.expected[i] * size),
            "max_probability": float(sums.largest[i]),
            "network_volume": float(sums.network.expected[i] * size),
            "network_dice": float(network_dice[i]),
            "members_dice": float(members.dice[i]) if members else math.nan,
        }
        if members:
            row |= {f"volume {name}": float(n[i] * size) for name, n in zip(case.networks, members.voxels)}
        rows[labels.key(channel)] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.astype({name: float for name in table if name != "name"})  # as they are read


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
        "TP": overlap.tp,
        "FP": overlap.fp,
        "FN": overlap.fn,
        "TN": overlap.tn,
        "Dice": overlap.dice,
        "IoU": overlap.iou,
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
    """What was measured of a case as it would be under a map, which changes no label.

    Sizes and sums of the network's own probabilities are those of the case; what the map adds to such a sum is
    estimated from the sample (difference estimator; Cochran, Sampling Techniques, 1977, chapter 7). Sums for
    calibration are estimated from the sample alone.

    Args:
        record: Of the case as the network gave it.
        calibration: The map.

    Raises:
        ValueError: The record has no sample.
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
    sums = ExpectedOverlap(np.maximum(expected + (change @ weights).numpy(), 0), n_voxels, np.clip(common, 0, n_voxels))
    labels = voxels.label.numpy()
    is_predicted = (labels > 0).any(0) if sample.regions else labels > 0
    means = mean_uncertainty(
        mapped.numpy()[:, is_predicted],
        labels[..., is_predicted],
        regions=sample.regions,
        weights=sample.weights[is_predicted],
    )
    n_bins = next(iter(record.bins.values())).n_bins if record.bins else DEFAULT_N_BINS
    return replace(
        record,
        structures=table.assign(predicted_dice=sums.dice, predicted_volume=sums.expected * size),
        scan=record.scan | means,
        bins=count_sample(sample, mapped, n_bins),
    )


def count_sample(sample: Sample, inside: Tensor | None = None, n_bins: int = DEFAULT_N_BINS) -> dict[str, BinStats]:
    """Sums of all voxels of a case for every mask, as :func:`~nnunet_nacl.numbers.counting.count_masks` gives them.

    The confidence is that of the label that the network chose, which no map changes. Voxels outside the network's crop
    are background for certain.

    Args:
        sample: Of the case.
        inside: (C, n) probabilities of the voxels drawn; None: the network's.
        n_bins: Confidence bins.

    Returns:
        Unbiased over draws of the sample, by mask.
    """
    voxels, regions = sample.voxels(), sample.regions
    probs = probabilities(voxels.log_odds.double(), regions) if inside is None else inside
    n_outside = len(sample.outside)
    outside = np.zeros((len(probs), n_outside))
    outside[: 0 if regions else 1] = 1
    codes = sample.outside[:, 0].astype(sample.target.dtype)
    truth, label = voxels.target.numpy(), voxels.label.numpy()
    if regions:
        truth = np.concatenate([truth, unpack(codes, len(truth))], 1).astype(bool)
        label = np.concatenate([label, np.zeros((len(label), n_outside), label.dtype)], 1).astype(bool)
    else:
        truth, label = np.concatenate([truth, codes]), np.concatenate([label, np.zeros(n_outside, label.dtype)])
    bits = np.concatenate([sample.masks, sample.outside[:, 1].astype(np.uint8)])
    return count_masks(
        np.concatenate([probs.numpy(), outside], 1),
        truth,
        segmentation=label,
        extra_masks={name: (bits >> bit & 1).astype(bool) for bit, name in enumerate(MASK_BITS)},
        regions=regions,
        n_bins=n_bins,
        weights=np.concatenate([sample.weights, sample.outside[:, 2]]),
    )
