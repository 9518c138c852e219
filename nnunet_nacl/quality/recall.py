"""Labels that miss less: some voxels that nnU-Net called background are given to the most probable structure.

nnU-Net's labels stay. A voxel that is background in them may be added to the structure with the largest probability of
all; to a region any voxel outside it. It is added where the network's own probability is at least the structure's
threshold t: labels grow as t falls, and what a structure misses depends on its own t alone. What lies in the label of
another structure, outside the box that the network saw, or below all thresholds is missed at every t.

The threshold is the largest by conformal risk control (:func:`~nnunet_nacl.quality.flags.controls_risk`) over the
patients who have the structure. A patient's loss is the share of the true voxels that is missed, the mean over its
scans. It holds for each structure by itself, on average over exchangeable patients predicted alike.
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

from nnunet_nacl.errors import UserError, some
from nnunet_nacl.json_types import Size, doc
from nnunet_nacl.quality.flags import controls_risk, patients_needed

RECALLS = (0.8, 0.9, 0.95)
"""Shares that reports tell the price of."""
THRESHOLDS: np.ndarray = expit(np.arange(-184, 1) / 20).astype(np.float32)
"""(B,) probabilities from 0.0001 to a half, .05 apart in log-odds; what is likelier than that has a label already."""


def addable(probs: np.ndarray, delivered: np.ndarray, regions: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The voxels that may be added to a structure, and from which threshold on each is.

    Args:
        probs: (K, *block) the network's own probabilities, background first, or (R, *block) of ``regions``.
        delivered: (*block) nnU-Net's label map, or (R, *block) whether a voxel is in each region.
        regions: Whether these are regions.

    Returns:
        Three (n,) arrays: structure, from 0; number of the voxel in the block; place in :data:`THRESHOLDS` of the
        largest that its probability reaches. Voxels that reach none are left out.
    """
    structures = probs.reshape(len(probs), -1)[0 if regions else 1 :]
    if regions:
        structure, voxel = np.nonzero(~delivered.reshape(structures.shape) & (structures >= THRESHOLDS[:1]))
    else:
        voxel = np.flatnonzero((delivered.ravel() == 0) & (structures.max(axis=0) >= THRESHOLDS[:1]))
        structure = structures[:, voxel].argmax(axis=0)
    reached = structures[structure, voxel].astype(np.float32)
    return structure, voxel, np.searchsorted(THRESHOLDS, reached, side="right") - 1


def count_addable(
    probs: np.ndarray, delivered: np.ndarray, truth: np.ndarray, regions: bool, valid: np.ndarray | None = None
) -> np.ndarray:
    """(2, structures, B) int64: the true voxels among those that may be added, and all, by the threshold they reach.

    Arguments are those of :func:`addable`; ``truth`` has the form of ``delivered``, and voxels where ``valid``,
    (*block), is False count nowhere.
    """
    num, size = len(probs) - (not regions), len(THRESHOLDS)
    structure, voxel, reached = addable(probs, delivered, regions)
    if valid is not None:
        structure, voxel, reached = (values[valid.ravel()[voxel]] for values in (structure, voxel, reached))
    is_true = truth.reshape(num, -1)[structure, voxel] if regions else truth.ravel()[voxel] == structure + 1
    place = structure * size + reached
    counts = [np.bincount(places, minlength=num * size) for places in (place[is_true], place)]
    return np.stack(counts).reshape(2, num, size)


def sensitive_labels(probs: np.ndarray, delivered: np.ndarray, limits: Sequence[float], regions: bool) -> np.ndarray:
    """What is ``delivered`` with all voxels added that reach the limit of their structure; a new array.

    Arguments are those of :func:`addable`; a limit is one of :data:`THRESHOLDS`, or infinity, which adds nothing.
    """
    structure, voxel, reached = addable(probs, delivered, regions)
    chosen, made = THRESHOLDS[reached] >= np.asarray(limits, float)[structure], delivered.copy()
    if regions:
        made.reshape(len(probs), -1)[structure[chosen], voxel[chosen]] = True
    else:
        made.reshape(-1)[voxel[chosen]] = structure[chosen] + 1
    return made


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedRecall:
    """What the labels of the calibration scans miss of a structure at each threshold, and what they grow by."""

    n_patients: Annotated[NonNegativeInt, doc("Patients whose truth has the structure; with none lists are empty.")] = 0
    missed: Annotated[
        list[Annotated[float, Field(ge=0, le=1)]],
        doc("Mean share of its true voxels missed at each threshold (log-odds -9.2, -9.15, ... 0), then by nnU-Net."),
    ] = field(default_factory=list)
    times_larger: Annotated[
        list[Size], doc("Its size there by that of nnU-Net's label, the median over scans with one; null without.")
    ] = field(default_factory=list)
    false_voxels: Annotated[list[Size], doc("Voxels that are added there and wrong, the median over all scans.")] = (
        field(default_factory=list)
    )

    def __post_init__(self) -> None:
        size = len(THRESHOLDS) + 1 if self.n_patients else 0
        if {len(self.missed), len(self.times_larger), len(self.false_voxels)} != {size}:
            raise ValueError(f"its lists must have {size} values each")
        if (np.diff(self.missed) < 0).any():
            raise ValueError("a higher threshold cannot miss less")

    def place(self, recall: float) -> int | None:
        """Place in the lists of the largest threshold that keeps to a recall; None where none does."""
        fits = np.flatnonzero(controls_risk(np.array(self.missed), self.n_patients, 1 - recall))
        return int(fits[-1]) if len(fits) else None

    def why_not(self, recall: float) -> str:
        """Why no threshold keeps to a recall, in words; empty where one does."""
        if self.place(recall) is not None:
            return ""
        if not (n := self.n_patients):
            return "no calibration patient has it"
        why = f"{100 * self.missed[0]:.3g} % of its voxels lie in other labels, or have a probability below 0.0001"
        if n < (needed := patients_needed(1 - recall)):
            why = f"it takes {needed} calibration patients who have it, there are {n}"
        best = math.floor(1000 * n * (1 - self.missed[0]) / (n + 1) + 1e-6) / 1000
        return f"{why}; {f'-recall {best:g}' if best else 'nothing'} can be had"


def learn_recall(
    cases: pd.DataFrame, counts: Sequence[np.ndarray], patients: Mapping[str, str]
) -> dict[str, LearnedRecall]:
    """What labels miss at each threshold, by nnU-Net's key of each structure that is in the truth of some case.

    ``cases`` has a row a case and structure, with ``case``, ``key``, ``TP``, ``FP`` and ``FN`` of nnU-Net's labels,
    ``counts`` of each case what :func:`count_addable` gives, in the same order, ``patients`` the patient of each case.
    """
    at_least = np.stack(counts)[..., ::-1].cumsum(axis=-1)[..., ::-1]
    at_least = np.concatenate([at_least, np.zeros_like(at_least[..., :1])], axis=-1)  # last, where nothing is added
    learned = {}
    for i, (key, rows) in enumerate(cases.groupby("key", sort=False)):
        found, added = at_least[:, 0, i], at_least[:, 1, i]
        n_true, n_labelled = (rows.TP + rows.FN).to_numpy(), (rows.TP + rows.FP).to_numpy()
        present, labelled = n_true > 0, n_labelled > 0
        if not present.any():
            continue
        loss = (rows.FN.to_numpy()[present, None] - found[present]) / n_true[present, None]
        patient = pd.factorize(rows.case[present].map(patients))[0]
        means = pd.DataFrame(loss).groupby(patient).mean().to_numpy()
        missed = np.maximum.accumulate(means.mean(axis=0)).tolist()  # rounding apart, it does not fall
        ratio = 1 + added[labelled] / n_labelled[labelled, None]
        larger = np.median(ratio, axis=0).round(4).tolist() if labelled.any() else [math.nan] * ratio.shape[1]
        learned[str(key)] = LearnedRecall(
            n_patients=len(means),
            missed=missed,
            times_larger=larger,
            false_voxels=np.median(added - found, axis=0).tolist(),
        )
    return learned


@dataclass(frozen=True, kw_only=True)
class SensitiveAim:
    """What labels that miss less aim at."""

    recall: Annotated[float, doc("Share of a structure's voxels that is to be found, on average over patients.")]
    thresholds: Annotated[
        dict[str, float | None],
        doc("By structure, the probability from which on a voxel is added; null where nnU-Net's labels suffice."),
    ]
    times_larger: Annotated[dict[str, Size], doc("By structure, how many times larger it became on calibration scans.")]
    refused: Annotated[dict[str, str], doc("By structure, why others stay as they are.")]
    is_exact: Annotated[bool, doc("Whether scans are predicted as the calibration scans were.")]

    @classmethod
    def of(
        cls, learned: Mapping[str, LearnedRecall], names: Mapping[str, str], recall: float, is_exact: bool
    ) -> SensitiveAim:
        """By what is ``learned``, and names, by nnU-Net's key; UserError where every structure is refused."""
        by_name = {name: learned.get(key, LearnedRecall()) for key, name in names.items()}
        places = {name: place for name, its in by_name.items() if (place := its.place(recall)) is not None}
        refused = {name: its.why_not(recall) for name, its in by_name.items() if name not in places}
        if not places:
            raise UserError(f"-recall {recall:g} cannot be had. {'; '.join(map(': '.join, refused.items()))}.")
        chosen = {name: [*THRESHOLDS.tolist(), None][place] for name, place in places.items()}
        larger = {name: by_name[name].times_larger[place] for name, place in places.items()}
        return cls(recall=recall, thresholds=chosen, times_larger=larger, refused=refused, is_exact=is_exact)

    def limits(self, names: Sequence[str]) -> list[float]:
        """The threshold of each structure; infinity where nothing is to be added."""
        return [math.inf if (limit := self.thresholds.get(name)) is None else limit for name in names]

    def text(self, place: str) -> str:
        """What the labels in a place are, and what they cost, in a few sentences."""
        share = (
            f"{100 * (1 - self.recall):.3g} % of each structure's voxels, for patients like the calibration patients."
        )
        text = f"In {place}: labels that {'' if self.is_exact else 'aim to '}miss on average at most {share}"
        if not self.is_exact:
            text += " The thresholds come from single networks: an ensemble may miss more or less."
        if sizes := [f"{size:.2f} ({name})" for name, size in self.times_larger.items() if not math.isnan(size)]:
            text += f" On calibration scans they are {some(sizes)} times as large as nnU-Net's, in the median."
        refused = [f"{name} ({why})" for name, why in self.refused.items()]
        return text + (f" Not available: {some(refused)}." if refused else "")
