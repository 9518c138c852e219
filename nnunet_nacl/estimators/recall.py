"""Sensitive labels, which miss less: voxels of the background go to the most probable structure.

nnU-Net's labels stay. A voxel that is background in them may be added to the structure with the
largest probability of all; to a region any voxel outside it. It is added where the network's own
probability is at least the structure's threshold t: labels grow as t falls, and what a structure
misses depends on its own t alone. What lies in the label of another structure, outside the box that
the network saw, or below all thresholds is missed at every t.

The threshold is the largest by conformal risk control
(:func:`~nnunet_nacl.estimators.risk_control.controls_risk`) over the patients who have the
structure. A patient's loss is the share of the true voxels that is missed, the mean over its
scans. The guarantee, an expected loss of at most 1 minus the recall that is asked for, holds for
each structure by itself, on average over exchangeable patients predicted alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt
from scipy.special import expit

from nnunet_nacl.estimators.risk_control import controls_risk, patients_needed
from nnunet_nacl.utilities.errors import UserError, some
from nnunet_nacl.utilities.json_types import Size, doc

RECALLS = (0.8, 0.9, 0.95)
"""Shares that reports tell the price of."""
THRESHOLDS: np.ndarray = expit(np.arange(-184, 1) / 20).astype(np.float32)
"""(B,) probabilities from 0.0001 to a half, .05 apart in log-odds; what is likelier than that has a
label already."""


def addable(
    probs: np.ndarray, delivered: np.ndarray, regions: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The voxels that may be added to a structure, and from which threshold on each is.

    Args:
        probs: (K, *block) the network's own probabilities, background first, or (R, *block) of
            ``regions``.
        delivered: (*block) nnU-Net's label map, or (R, *block) whether a voxel is in each region.
        regions: Whether these are regions.

    Returns:
        Three (n,) arrays: structure, from 0; number of the voxel in the block; index in
        :data:`THRESHOLDS` of the largest that its probability reaches. Voxels that reach none are
        left out.
    """
    probs_of_voxels = probs.reshape(len(probs), -1)
    if regions:
        structures = probs_of_voxels
        is_outside = ~delivered.reshape(structures.shape)
        structure, voxel = np.nonzero(is_outside & (structures >= THRESHOLDS[:1]))
    else:
        structures = probs_of_voxels[1:]
        is_background = delivered.ravel() == 0
        voxel = np.flatnonzero(is_background & (structures.max(axis=0) >= THRESHOLDS[:1]))
        structure = structures[:, voxel].argmax(axis=0)
    probability = structures[structure, voxel].astype(np.float32)
    reached = np.searchsorted(THRESHOLDS, probability, side="right") - 1
    return structure, voxel, reached


def count_addable(
    probs: np.ndarray,
    delivered: np.ndarray,
    truth: np.ndarray,
    regions: bool,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Count the voxels that may be added, by the threshold that they reach.

    (2, structures, B) int64: the true ones among them, and all. Arguments are those of
    :func:`addable`; ``truth`` has the form of ``delivered``, and voxels where ``valid``, (*block),
    is False count nowhere.
    """
    num_structures = len(probs) if regions else len(probs) - 1
    num_thresholds = len(THRESHOLDS)
    structure, voxel, reached = addable(probs, delivered, regions)
    if valid is not None:
        is_valid = valid.ravel()[voxel]
        structure = structure[is_valid]
        voxel = voxel[is_valid]
        reached = reached[is_valid]
    if regions:
        is_true = truth.reshape(num_structures, -1)[structure, voxel]
    else:
        is_true = truth.ravel()[voxel] == structure + 1
    bin_number = structure * num_thresholds + reached
    num_bins = num_structures * num_thresholds
    true_counts = np.bincount(bin_number[is_true], minlength=num_bins)
    all_counts = np.bincount(bin_number, minlength=num_bins)
    return np.stack([true_counts, all_counts]).reshape(2, num_structures, num_thresholds)


def sensitive_labels(
    probs: np.ndarray, delivered: np.ndarray, limits: Sequence[float], regions: bool
) -> np.ndarray:
    """The labels with all voxels added that reach the limit of their structure; a new array.

    Arguments are those of :func:`addable`; a limit is one of :data:`THRESHOLDS`, or infinity, which
    adds nothing.
    """
    structure, voxel, reached = addable(probs, delivered, regions)
    is_added = THRESHOLDS[reached] >= np.asarray(limits, float)[structure]
    labels = delivered.copy()
    if regions:
        labels.reshape(len(probs), -1)[structure[is_added], voxel[is_added]] = True
    else:
        labels.reshape(-1)[voxel[is_added]] = structure[is_added] + 1
    return labels


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedRecall:
    """What labels miss of a structure at each threshold, and what they grow by."""

    n_patients: Annotated[
        NonNegativeInt, doc("Patients whose truth has the structure; with none lists are empty.")
    ] = 0
    missed: Annotated[
        list[Annotated[float, Field(ge=0, le=1)]],
        doc(
            "Mean share of its true voxels missed at each threshold (log-odds -9.2, -9.15, ... 0),"
            " then by nnU-Net."
        ),
    ] = field(default_factory=list)
    times_larger: Annotated[
        list[Size],
        doc(
            "Its size there by that of nnU-Net's label, the median over scans with one; null"
            " without."
        ),
    ] = field(default_factory=list)
    false_voxels: Annotated[
        list[Size], doc("Voxels that are added there and wrong, the median over all scans.")
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = len(THRESHOLDS) + 1 if self.n_patients else 0
        if {len(self.missed), len(self.times_larger), len(self.false_voxels)} != {size}:
            raise ValueError(f"its lists must have {size} values each")
        if (np.diff(self.missed) < 0).any():
            raise ValueError("a higher threshold cannot miss less")

    def threshold_index(self, recall: float) -> int | None:
        """Index in the lists of the largest threshold that keeps to a recall; None without."""
        fits = np.flatnonzero(controls_risk(np.array(self.missed), self.n_patients, 1 - recall))
        return int(fits[-1]) if len(fits) else None

    def why_not(self, recall: float) -> str:
        """Why no threshold keeps to a recall, in words; empty where one does."""
        if self.threshold_index(recall) is not None:
            return ""
        n = self.n_patients
        if not n:
            return "no calibration patient has it"
        needed = patients_needed(1 - recall)
        if n < needed:
            why = f"it takes {needed} calibration patients who have it, there are {n}"
        else:
            why = (
                f"{100 * self.missed[0]:.3g} % of its voxels lie in other labels, or have a"
                " probability below 0.0001"
            )
        # The largest recall that `controls_risk` allows at the lowest threshold: 1 minus
        # (n missed + 1) / (n + 1).
        best = math.floor(1000 * n * (1 - self.missed[0]) / (n + 1) + 1e-6) / 1000
        if not best:
            return f"{why}; nothing can be had"
        return f"{why}; {best:g} can be had"


def learn_recall(
    cases: pd.DataFrame, counts: Sequence[np.ndarray], patients: Mapping[str, str]
) -> dict[str, LearnedRecall]:
    """What labels miss at each threshold, by key of each structure that is in some truth.

    Args:
        cases: A row for each case and structure, with ``case``, ``key``, and ``TP``, ``FP`` and
            ``FN`` of nnU-Net's labels. Structures come in the order of the channels, as in
            ``counts``.
        counts: Of each case what :func:`count_addable` gives, in the same order of cases.
        patients: Patient of each case.
    """
    # Voxels that reach at least each threshold; last, where nothing is added.
    reaching = np.stack(counts)[..., ::-1].cumsum(axis=-1)[..., ::-1]
    reaching = np.concatenate([reaching, np.zeros_like(reaching[..., :1])], axis=-1)
    learned = {}
    for structure, (key, rows) in enumerate(cases.groupby("key", sort=False)):
        num_true = (rows.TP + rows.FN).to_numpy()
        if (num_true > 0).any():
            patient = rows.case.map(patients).to_numpy()
            learned[str(key)] = _learn_structure(
                rows, patient, reaching[:, 0, structure], reaching[:, 1, structure]
            )
    return learned


def _learn_structure(
    rows: pd.DataFrame, patient: np.ndarray, num_found: np.ndarray, num_added: np.ndarray
) -> LearnedRecall:
    """What the labels of one structure miss at each threshold.

    Args:
        rows: A row for each case, as :func:`learn_recall` takes them.
        patient: (n,) of each case.
        num_found: (n, B + 1) true voxels that are added at each threshold.
        num_added: (n, B + 1) all voxels that are.
    """
    num_true = (rows.TP + rows.FN).to_numpy()
    num_labelled = (rows.TP + rows.FP).to_numpy()
    is_present = num_true > 0
    is_labelled = num_labelled > 0
    num_missed = rows.FN.to_numpy()[is_present, None] - num_found[is_present]
    loss = num_missed / num_true[is_present, None]
    mean_by_patient = (
        pd.DataFrame(loss).groupby(pd.factorize(patient[is_present])[0]).mean().to_numpy()
    )
    ratio = 1 + num_added[is_labelled] / num_labelled[is_labelled, None]
    no_size = [math.nan] * ratio.shape[1]
    times_larger = np.median(ratio, axis=0).round(4).tolist() if is_labelled.any() else no_size
    return LearnedRecall(
        n_patients=len(mean_by_patient),
        # rounding apart, it does not fall
        missed=np.maximum.accumulate(mean_by_patient.mean(axis=0)).tolist(),
        times_larger=times_larger,
        false_voxels=np.median(num_added - num_found, axis=0).tolist(),
    )


@dataclass(frozen=True, kw_only=True)
class SensitiveAim:
    """What sensitive labels aim at."""

    recall: Annotated[
        float, doc("Share of a structure's voxels that is to be found, on average over patients.")
    ]
    thresholds: Annotated[
        dict[str, float | None],
        doc(
            "By structure, the probability from which on a voxel is added; null where nnU-Net's"
            " labels suffice."
        ),
    ]
    times_larger: Annotated[
        dict[str, Size], doc("By structure, how many times larger it became on calibration scans.")
    ]
    refused: Annotated[dict[str, str], doc("By structure, why others stay as they are.")]
    is_exact: Annotated[bool, doc("Whether scans are predicted as the calibration scans were.")]

    @classmethod
    def of(
        cls,
        learned: Mapping[str, LearnedRecall],
        names: Mapping[str, str],
        recall: float,
        is_exact: bool,
    ) -> SensitiveAim:
        """The aim of a recall.

        Args:
            learned: By nnU-Net's key of each structure that some calibration scan has.
            names: Name of each structure by nnU-Net's key.
            recall: Share of a structure's voxels that is to be found.
            is_exact: Whether scans are predicted as the calibration scans were.

        Raises:
            UserError: No structure can keep it.
        """
        thresholds: dict[str, float | None] = {}
        times_larger = {}
        refused = {}
        for key, name in names.items():
            learned_recall = learned.get(key, LearnedRecall())
            index = learned_recall.threshold_index(recall)
            if index is None:
                refused[name] = learned_recall.why_not(recall)
                continue
            is_enlarged = index < len(THRESHOLDS)
            thresholds[name] = float(THRESHOLDS[index]) if is_enlarged else None
            times_larger[name] = learned_recall.times_larger[index]
        if not thresholds:
            reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
            raise UserError(f"[[recall={recall:g}]] cannot be had. {reasons}.")
        return cls(
            recall=recall,
            thresholds=thresholds,
            times_larger=times_larger,
            refused=refused,
            is_exact=is_exact,
        )

    def limits(self, names: Sequence[str]) -> list[float]:
        """The threshold of each structure; infinity where nothing is to be added."""
        limits = []
        for name in names:
            threshold = self.thresholds.get(name)
            limits.append(math.inf if threshold is None else threshold)
        return limits

    def text(self, where: str) -> str:
        """What the labels are, and what they cost, in a few sentences.

        ``where`` is their folder, in words.
        """
        miss = "miss" if self.is_exact else "aim to miss"
        sentences = [
            f"In {where}: sensitive labels, which {miss} on average at most"
            f" {100 * (1 - self.recall):.3g} % of each structure's voxels, for patients like the"
            " calibration patients."
        ]
        if not self.is_exact:
            sentences.append(
                "The thresholds come from single networks: an ensemble may miss more or less."
            )
        sizes = [
            f"{size:.2f} ({name})"
            for name, size in self.times_larger.items()
            if not math.isnan(size)
        ]
        if sizes:
            sentences.append(
                f"On calibration scans they are {some(sizes)} times as large as nnU-Net's, in the"
                " median."
            )
        if self.refused:
            refused = [f"{name} ({why})" for name, why in self.refused.items()]
            sentences.append(f"Not available: {some(refused)}.")
        return " ".join(sentences)
