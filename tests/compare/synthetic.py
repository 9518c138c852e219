"""Evaluated cases without any file: small random cases, whose Dice and distances can be set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from nnunet_nacl.case.results import (
    MASKS,
    CaseQuality,
    CaseResult,
    EvaluationSettings,
    Structure,
    StructureQuality,
)
from nnunet_nacl.compare.alignment import Dataset
from nnunet_nacl.compare.comparison import Comparison
from nnunet_nacl.compare.entries import Entry
from nnunet_nacl.numbers import count_masks
from nnunet_nacl.numbers.overlap import Overlap

STRUCTURES = {"1": "Anterior", "2": "Posterior"}


def make_structure(overlap: Overlap, hd95_mm: float, assd_mm: float) -> Structure:
    """Of these counts and distances."""
    return Structure(
        overlap.tp, overlap.fp, overlap.fn, overlap.tn, assd_mm, {"HD95_pooled_mm": hd95_mm, "HD95_voxels": hd95_mm}, {}
    )


def make_quality(keys=STRUCTURES) -> CaseQuality:
    """Of a case whose structures, which are all there, are alike."""
    structure = StructureQuality(0.5, 1.0, 1.0, 1.0, max_probability=1.0, largest_dice=0.6, true_pieces=1)
    return CaseQuality("ml", 0.001, 0.2, 0.8, dict.fromkeys(keys, structure))


def make_case(name: str, rng: np.random.Generator, sharpness: float) -> CaseResult:
    """A case of 200 voxels; sharper is more often right, and more confident."""
    truth = rng.integers(0, 3, 200)
    logits = rng.normal(size=(3, 200)) + sharpness * (np.arange(3)[:, None] == truth)
    probs = np.exp(logits) / np.exp(logits).sum(0)
    prediction = probs.argmax(0)
    structures = {}
    for key in STRUCTURES:
        a, b = truth == int(key), prediction == int(key)
        overlap = Overlap(*(int(n.sum()) for n in (a & b, ~a & b, a & ~b, ~a & ~b)))
        structures[key] = make_structure(overlap, float(rng.integers(2, 9)) / 2, 1.0)
    counted = count_masks(
        probs, truth, extra_masks={"dilated": truth > 0, "boundary": truth > 0, "near": prediction > 0}
    )
    stats = {mask: counted[mask] for mask in MASKS}
    return CaseResult(name, "a.nii.gz", "p.nii.gz", "a.npz", 2, 0, structures, stats, make_quality())


def make_dataset(
    trainers: Mapping[str, float], *, cases: int = 8, name: str = "Dataset001_Made", seed: int = 0, notes: Sequence = ()
) -> Dataset:
    """Results of each trainer (by sharpness) on the same truth."""
    names = tuple(f"case_{i:02d}" for i in range(cases))
    results = {
        trainer: [make_case(case, np.random.default_rng([seed, i]), sharpness) for i, case in enumerate(names)]
        for trainer, sharpness in trainers.items()
    }
    return Dataset(
        name=name,
        configuration="2d",
        plans="nnUNetPlans",
        folds=("0", "1"),
        regions=False,
        structures=STRUCTURES,
        settings=EvaluationSettings(),
        cases=names,
        results=results,
        notes=list(notes),
    )


def make_comparison(
    trainers: Mapping[str, float] | None = None, *, datasets: Sequence[Dataset] | None = None, **arguments
) -> Comparison:
    """Two trainers on one data set unless told otherwise."""
    trainers = trainers or {"nnUNetTrainer": 1.0, "nnUNetTrainerNACL": 2.0}
    given = [Entry(name, name.removeprefix("nnUNetTrainer") or "stock", name) for name in trainers]
    datasets = datasets or [make_dataset(trainers, **arguments)]
    return Comparison(given, datasets, n_bootstrap=200)


def with_structure(case: CaseResult, key: str, overlap: Overlap, hd95_mm: float) -> CaseResult:
    """The case with another overlap and distance of one structure."""
    return replace(case, metrics={**case.metrics, key: make_structure(overlap, hd95_mm, hd95_mm)})
