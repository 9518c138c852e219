"""Measured cases without any file: small random cases, whose Dice and distances can be set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.cases.case import MASKS, EvaluationSettings
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.methods import ComparedMethod
from nnunet_nacl.metrics import count_masks
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.overlap import FoundComponents, Overlap
from nnunet_nacl.settings import ComparisonSettings

ONE_COMPONENT = FoundComponents(true=1, touched=1, false=0)
STRUCTURES = {"1": "Anterior", "2": "Posterior"}
TWO = {"nnUNetTrainer": 1.0, "nnUNetTrainerNACL": 2.0}
THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}


@dataclass(frozen=True)
class Record:
    """What a comparison needs of a case."""

    name: str
    structures: pd.DataFrame
    bins: dict[str, BinStats]
    scan: dict[str, Any] = field(default_factory=dict)


def row_of(overlap: Overlap, hd95_mm: float) -> dict[str, float]:
    """The columns of a structure with these counts, this distance and one component, which is
    found."""
    counts = {"TP": overlap.tp, "FP": overlap.fp, "FN": overlap.fn, "TN": overlap.tn}
    segmented = {"Dice": overlap.dice, "HD95_mm": hd95_mm}
    return {**counts, **segmented, **values_of_components(ONE_COMPONENT)}


def values_of_components(components: FoundComponents) -> dict[str, float]:
    """The columns of a structure with these components."""
    return {
        "component_recall": components.recall,
        "false_components": components.false,
        "component_F1": components.f1,
        "true_pieces": components.true,
    }


def make_record(name: str, rng: np.random.Generator, sharpness: float) -> Record:
    """A case of 200 voxels; sharper is more often right, nearer, and more confident."""
    truth = rng.integers(0, 3, 200)
    logits = rng.normal(size=(3, 200)) + sharpness * (np.arange(3)[:, None] == truth)
    probs = np.exp(logits) / np.exp(logits).sum(0)
    prediction = probs.argmax(0)
    rows = {}
    for key in STRUCTURES:
        overlap = count_overlap(truth == int(key), prediction == int(key))
        rows[key] = row_of(overlap, float(rng.integers(2, 9)) / (1 + sharpness))
    masks = {"dilated": truth > 0, "boundary": truth > 0, "near": prediction > 0}
    counted = count_masks(probs, truth, extra_masks=masks)
    structures = pd.DataFrame.from_dict(rows, orient="index")
    return Record(name, structures, {mask: counted[mask] for mask in MASKS})


def count_overlap(truth: np.ndarray, prediction: np.ndarray) -> Overlap:
    """Counts of two boolean arrays."""
    return Overlap(
        int((truth & prediction).sum()),
        int((~truth & prediction).sum()),
        int((truth & ~prediction).sum()),
        int((~truth & ~prediction).sum()),
    )


def label_of(trainer: str) -> str:
    """``NACL``; of nnU-Net's own trainer ``nnU-Net``."""
    return trainer.removeprefix("nnUNetTrainer") or "nnU-Net"


def make_comparison(
    trainers: Mapping[str, float] = TWO,
    *,
    cases: int = 8,
    name: str = "Dataset001_Made",
    seed: int = 0,
    notes: Sequence = (),
    methods: Sequence[ComparedMethod] = (),
) -> Comparison:
    """Records of each trainer (by sharpness) on the same truth, of two unless told otherwise."""
    records: dict[str, list[Record]] = {}
    for trainer, sharpness in trainers.items():
        records[trainer] = []
        for i in range(cases):
            rng = np.random.default_rng([seed, i])
            records[trainer].append(make_record(f"case_{i:02d}", rng, sharpness))
    if not methods:
        methods = [ComparedMethod(trainer, label_of(trainer), trainer) for trainer in trainers]
    return Comparison(
        name=name,
        options=ComparisonSettings(configuration="2d", n_bootstrap=200),
        methods=methods,
        folds=("0", "1"),
        regions=False,
        structures=STRUCTURES,
        settings=EvaluationSettings(),
        records=records,
        notes=list(notes),
    )


def with_structure(record: Record, key: str, overlap: Overlap, hd95_mm: float) -> Record:
    """The case with another overlap and distance of one structure."""
    rows = record.structures.to_dict("index") | {key: row_of(overlap, hd95_mm)}
    return replace(record, structures=pd.DataFrame.from_dict(rows, orient="index"))


def with_components(record: Record, key: str, components: FoundComponents) -> Record:
    """The case with other components of one structure."""
    rows = record.structures.to_dict("index")
    rows[key] |= values_of_components(components)
    return replace(record, structures=pd.DataFrame.from_dict(rows, orient="index"))
