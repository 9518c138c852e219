"""Measures a case in one pass over its probabilities; estimates what a map changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from nnunet_nacl.cases.case import MASKS, Case, EvaluationSettings, Truth
from nnunet_nacl.cases.findings import (
    FindingSums,
    compare_components,
    components_inside,
    label_components,
    structure_boxes,
)
from nnunet_nacl.cases.probabilities import Box
from nnunet_nacl.cases.record import CaseRecord, ScanValues
from nnunet_nacl.cases.sample import MASK_BITS, Sample, class_type, draw_sample, pack
from nnunet_nacl.cases.structure_values import MEMBER_VOLUME
from nnunet_nacl.cases.sums import CaseSums
from nnunet_nacl.cases.views import VoxelUncertainty
from nnunet_nacl.estimators.log_odds import is_label, probabilities
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.estimators.voxels import Voxels
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.distance_masks import dilated_mask
from nnunet_nacl.metrics.expected_dice import dice_of_sums, largest_dice
from nnunet_nacl.metrics.grid import bounding_box
from nnunet_nacl.metrics.overlap import FoundComponents, count_overlap
from nnunet_nacl.metrics.surfaces import assd, hausdorff, surface_distances
from nnunet_nacl.metrics.voxel_uncertainty import mean_uncertainty


def measure(
    case: Case,
    calibration: LogOddsMap | None = None,
    uncertainty: VoxelUncertainty | None = None,
    *,
    settings: EvaluationSettings = EvaluationSettings(),
    with_sample: bool = False,
    findings: Sequence[int] = (),
) -> CaseRecord:
    """The record of a case, without its key, measured block by block. Ignored voxels count nowhere.

    Args:
        case: With its probabilities. What needs a ground truth is measured where there is one.
        calibration: Map that the probabilities are taken through; it changes no label. None leaves
            them.
        uncertainty: What :meth:`VoxelUncertainty.of` gives for the case; it is filled while the
            case is measured. None makes no images.
        settings: What is measured beside a ground truth.
        with_sample: Draw the sample that calibration is fitted to; it needs a ground truth.
        findings: Channels of the structures whose connected components are listed.

    Raises:
        ValueError: The case has no probabilities, they are not probabilities, or there is nothing
            to sample.
    """
    probabilities = case.probabilities
    truth = case.prepare_truth(settings)
    components = _components_of(case, truth, findings)
    sums = CaseSums(case, truth, settings.n_bins)
    # Outside the network's crop all is background, which adds nothing to sums over structures.
    # Beside a truth the whole image counts: calibration is that of all voxels.
    counted_box = probabilities.box if truth is None else None  # None: the whole image
    for where in probabilities.boxes(counted_box):
        probs, raw = probabilities.under(calibration, where)
        sums.add(where, probs, raw)
        for sums_of_findings in components.finding_sums:
            sums_of_findings.add(where, probs)
        if uncertainty is not None:
            uncertainty.add(where, probs, raw, case.segmentation[where], case.labels)
    record = CaseRecord(
        case.name,
        _structure_table(case, truth, sums, components),
        _scan_values(case, truth, sums),
        findings=tuple(sums_of_findings.findings() for sums_of_findings in components.finding_sums),
        differences=case.differences,
        profile=case.profile,
        files=case.files,
        made_by=case.made_by,
    )
    if truth is None:
        return record
    return replace(
        record,
        bins={mask: sums.bins[mask] for mask in MASKS if sums.bins},
        addable=sums.addable,
        sample=_sample(case, truth, settings) if with_sample else None,
    )


class _CaseComponents(NamedTuple):
    """Connected components of the structures of a case.

    Attributes:
        sizes: By channel, voxels of each component of the segmentation.
        found: By channel, which of the truth's are found; empty without a truth.
        finding_sums: Sums over the components of each structure of the findings.
    """

    sizes: Mapping[int, np.ndarray]
    found: Mapping[int, FoundComponents]
    finding_sums: Sequence[FindingSums]


def _components_of(case: Case, truth: Truth | None, findings: Sequence[int]) -> _CaseComponents:
    """The components of each structure.

    Where they lie is kept of the findings alone: it takes four bytes a voxel of the structure's
    box.
    """
    labels = case.labels
    boxes = structure_boxes(case.segmentation, labels)
    sizes = dict[int, np.ndarray]()
    found = dict[int, FoundComponents]()
    finding_sums = dict[int, FindingSums]()
    true_boxes = (
        structure_boxes(truth.label_map, labels) if truth is not None else dict[int, Box | None]()
    )
    for channel in labels.foreground:
        components = label_components(case.segmentation, labels, channel, boxes[channel])
        sizes[channel] = components.voxels
        if channel in findings:
            finding_sums[channel] = FindingSums(case, channel, components)
        if truth is not None:
            true_components = label_components(
                truth.label_map, labels, channel, true_boxes[channel]
            )
            if truth.valid is not None:
                components = components_inside(components, truth.valid)
            found[channel] = compare_components(true_components, components)
    return _CaseComponents(sizes, found, [finding_sums[channel] for channel in findings])


def _scan_values(case: Case, truth: Truth | None, sums: CaseSums) -> ScanValues:
    """Values of the case as a whole, see :func:`nnunet_nacl.cases.record.table`."""
    mean_uncertainty = sums.mean_uncertainty
    values: ScanValues = {
        "unit": case.geometry.unit,
        "voxel_volume": case.geometry.voxel_size,
        "entropy": mean_uncertainty["entropy"],
        "confidence": mean_uncertainty["confidence"],
        "mutual_information": math.nan,
        "n_members": float(len(case.networks)),
    }
    if case.disagreement:
        values["mutual_information"] = case.disagreement.foreground_mutual_information
    if truth is not None:
        values["n_changed_voxels"] = float(sums.n_changed)
        values["largest_label"] = float(truth.label_map.max(initial=0))
    return values


def _structure_table(
    case: Case, truth: Truth | None, sums: CaseSums, components: _CaseComponents
) -> pd.DataFrame:
    """A row for each structure, see :func:`nnunet_nacl.cases.record.table`."""
    labels = case.labels
    voxel_size = case.geometry.voxel_size
    expected_voxels, n_voxels, _ = sums.expected  # the third: expected voxels in common
    _, network_probability_sums = sums.network  # the first: numbers of voxels
    table = pd.DataFrame(index=list(labels.structures))
    if truth is not None:
        table = pd.DataFrame(_compare_with_truth(case, truth, components.found), table.index)
    members_dice: np.ndarray | float = case.disagreement.dice if case.disagreement else math.nan
    table = table.assign(
        pieces=[len(components.sizes[channel]) for channel in labels.foreground],
        largest_piece=[_largest_share(components.sizes[channel]) for channel in labels.foreground],
        volume=n_voxels * voxel_size,
        predicted_dice=dice_of_sums(sums.expected),
        predicted_volume=expected_voxels * voxel_size,
        max_probability=sums.max_probability,
        network_volume=network_probability_sums.sum(1) * voxel_size,
        network_dice=largest_dice(sums.network),
        members_dice=members_dice,
    )
    if case.disagreement:
        for network, voxels in zip(case.networks, case.disagreement.voxels):
            table[f"{MEMBER_VOLUME}{network}"] = voxels * voxel_size
    table = table.astype(float)
    table.insert(0, "name", list(labels.structures.values()))
    return table


def _largest_share(component_sizes: np.ndarray) -> float:
    """Share of the largest component; NaN without any."""
    if not len(component_sizes):
        return math.nan
    return float(component_sizes.max() / component_sizes.sum())


def _compare_with_truth(
    case: Case, truth: Truth, found_components: Mapping[int, FoundComponents]
) -> list[dict[str, float]]:
    labels = case.labels
    rows = []
    for channel in labels.foreground:
        true_mask = labels.mask(truth.label_map, channel)
        predicted_mask = labels.mask(case.segmentation, channel)
        row = _compare_masks(true_mask, predicted_mask, truth.valid, case)
        found = found_components[channel]
        row["true_pieces"] = found.true
        row["component_recall"] = found.recall
        row["false_components"] = found.false
        row["component_F1"] = found.f1
        rows.append(row)
    return rows


def _compare_masks(
    truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None, case: Case
) -> dict[str, float]:
    """Overlap and surface distances of a structure."""
    overlap = count_overlap(truth, predicted, valid)
    if valid is not None:
        truth = truth & valid
        predicted = predicted & valid
    box = bounding_box(truth | predicted)
    # with a voxel around it, so that no axis of an image becomes one of length 1
    if box is not None:
        box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
        truth = truth[box]
        predicted = predicted[box]
    distances_mm = surface_distances(truth, predicted, case.spacing_mm)
    distances_voxels = (
        surface_distances(truth, predicted) if set(case.spacing_mm) != {1.0} else distances_mm
    )
    return {
        "TP": overlap.tp,
        "FP": overlap.fp,
        "FN": overlap.fn,
        "TN": overlap.tn,
        "Dice": overlap.dice,
        "IoU": overlap.iou,
        "HD95_mm": hausdorff(distances_mm),
        "HD95_voxels": hausdorff(distances_voxels),
        "ASSD_mm": assd(distances_mm),
        "true_volume": (overlap.tp + overlap.fn) * case.geometry.voxel_size,
    }


def _sample(case: Case, truth: Truth, settings: EvaluationSettings) -> Sample:
    labels = case.labels
    if labels.regions:
        masks = (labels.mask(truth.label_map, channel) for channel in labels.foreground)
        target = pack(masks, len(labels.values))
    else:
        target = truth.label_map.astype(class_type(len(labels.values)))

    # around what the network predicts, from which the case's segmentation may differ
    def near(is_predicted: np.ndarray) -> np.ndarray:
        return dilated_mask(is_predicted, settings.dilation_mm, case.spacing_mm)

    return draw_sample(
        case.probabilities, target, valid=truth.valid, around=truth.around, near=near
    )


def under(record: CaseRecord, calibration: LogOddsMap) -> CaseRecord:
    """What was measured of a case as it would be under a map, which changes no label.

    Sizes and sums of the network's own probabilities are those of the case; what the map adds to
    such a sum is estimated from the sample (difference estimator; Cochran, Sampling Techniques,
    1977, chapter 7). Sums for calibration are estimated from the sample alone.

    Raises:
        ValueError: The record has no sample.
    """
    sample = record.sample
    if sample is None:
        raise ValueError(f"{record.name}: its record has no sample.")
    voxels = sample.voxels()
    odds = voxels.log_odds.double()
    mapped = calibration.to_probabilities(odds, voxels.label)
    change = mapped - probabilities(odds, sample.regions)
    mean_values = _sampled_uncertainty(sample, mapped.numpy(), voxels.label.numpy())
    n_bins = record.bins["all"].n_bins if record.bins else DEFAULT_N_BINS
    return replace(
        record,
        structures=_structures_under_map(record, sample, voxels, change),
        scan={
            **record.scan,
            "entropy": mean_values["entropy"],
            "confidence": mean_values["confidence"],
        },
        bins=_count_sample(sample, mapped.numpy(), n_bins),
    )


def _structures_under_map(
    record: CaseRecord, sample: Sample, voxels: Voxels, change: Tensor
) -> pd.DataFrame:
    """The table of structures after the (C, n) change of the probabilities of sampled voxels."""
    table = record.structures
    voxel_size = record.scan["voxel_volume"]
    expected_voxels = table["predicted_volume"].to_numpy() / voxel_size
    n_voxels = table["volume"].to_numpy() / voxel_size
    predicted_dice = table["predicted_dice"].to_numpy()
    # predicted Dice is 2 common / (expected_voxels + n_voxels), solved for what both have in common
    common = np.where(n_voxels > 0, predicted_dice * (expected_voxels + n_voxels) / 2, 0.0)

    first_structure = 0 if sample.regions else 1
    change = change[first_structure:]
    inside = is_label(voxels.label, sample.num_structures)
    weights = voxels.all_weights
    common = np.clip(common + (change * inside @ weights).numpy(), 0, n_voxels)
    expected_voxels = np.maximum(expected_voxels + (change @ weights).numpy(), 0)
    return table.assign(
        predicted_dice=dice_of_sums(np.stack([expected_voxels, n_voxels, common])),
        predicted_volume=expected_voxels * voxel_size,
    )


def _sampled_uncertainty(sample: Sample, probs: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """``entropy`` and ``confidence`` of a case, by (C, n) probabilities of its sampled voxels."""
    is_predicted = (label > 0).any(0) if sample.regions else label > 0
    return mean_uncertainty(
        probs[:, is_predicted],
        label[..., is_predicted],
        regions=sample.regions,
        weights=sample.weights[is_predicted],
    )


def _count_sample(sample: Sample, probs: np.ndarray, n_bins: int) -> dict[str, BinStats]:
    """Sums of all voxels of a case for every mask, by probabilities (C, n) of those drawn.

    They are unbiased over draws. The confidence is that of the label that the network chose, which
    no map changes. Voxels outside the network's crop are background for certain; ``sample.outside``
    has one row for all of these that have the same target and masks.
    """
    outside_target, outside_masks, outside_counts = sample.outside.T
    num_outside = len(outside_counts)
    certain = np.zeros((len(probs), num_outside))
    if not sample.regions:
        certain[0] = 1
    mask_bits = np.concatenate([sample.masks, outside_masks.astype(np.uint8)])
    target = np.concatenate([sample.target, outside_target.astype(sample.target.dtype)])
    label = np.concatenate([sample.label, np.zeros(num_outside, sample.label.dtype)])
    label_type = bool if sample.regions else np.int64
    return count_masks(
        np.concatenate([probs, certain], 1),
        sample.unpacked(target).astype(label_type),
        segmentation=sample.unpacked(label).astype(label_type),
        extra_masks={
            name: (mask_bits >> bit & 1).astype(bool) for bit, name in enumerate(MASK_BITS)
        },
        regions=sample.regions,
        n_bins=n_bins,
        weights=np.concatenate([sample.weights, outside_counts]),
    )
