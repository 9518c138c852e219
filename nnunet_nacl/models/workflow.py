"""From held-out cases to a map and what it changes: samples, choice of the form, exact fit, cross-fitted report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nnunet_nacl
from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.crossfit import FormScore, choose_form, compare_forms, left_out_masks, parts_of
from nnunet_nacl.calibration.effect import changes
from nnunet_nacl.calibration.estimates import estimate_values
from nnunet_nacl.calibration.fitting import FORMS, Fit, fit
from nnunet_nacl.calibration.likelihood import Voxels
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.cases.heldout import HeldOut, case_values
from nnunet_nacl.documents.map_file import map_to_json, structures_of
from nnunet_nacl.documents.results import Evaluation
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import can_write

__all__ = ["CONFIDENT", "MIN_CASES", "Calibration", "calibrate"]

MIN_CASES = 5
CONFIDENT = 0.9


@dataclass(frozen=True)
class Calibration:
    """A map and how it was found.

    Attributes:
        fit: To all cases.
        form: Of the map.
        scores: By form, on samples.
        parts: Part of each case.
        part_maps: By part the map that was fitted without it.
        structures: Name of each structure by nnU-Net's key.
        effect: Each value before and after, cross-fitted.
        confident: Foreground voxels with a probability above ``CONFIDENT`` before.
        confident_changed: How many of them get another label.
        exact: Whether all voxels were used; else samples were.
        groups: Patient of each case; None: each case its own.
    """

    fit: Fit
    form: str
    scores: dict[str, FormScore]
    parts: dict[str, str]
    part_maps: dict[str, AffineMap]
    structures: dict[str, str]
    effect: dict[str, dict[str, Any]]
    confident: float
    confident_changed: float
    exact: bool
    groups: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Content of calibration_map.json."""
        document = map_to_json(self.fit.map, self.structures)
        for row, *errors in zip(document["structures"], *np.split(self.fit.standard_errors, 2)):
            row |= dict(zip(("slope_standard_error", "offset_standard_error"), map(float, errors)))
        cases: dict[str, list[str]] = {part: [] for part in self.part_maps}
        for case, part in self.parts.items():
            cases[part].append(case)
        return (
            document
            | ({"groups": self.groups} if self.groups else {})
            | {
                "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
                "form": self.form,
                "n_cases": len(self.parts),
                "fitted_to": "all voxels inside nnU-Net's crop" if self.exact else "samples of the cases",
                "nll": self.fit.loss,
                "forms": {form: asdict(score) for form, score in self.scores.items()},
                "confident_voxels": {"threshold": CONFIDENT, "n": self.confident, "n_changed": self.confident_changed},
                "effect": self.effect,
                "cross_fit": {
                    part: {"slopes": list(one.slopes), "offsets": list(one.offsets), "cases": cases[part]}
                    for part, one in self.part_maps.items()
                },
            }
        )


def calibrate(
    held_out: HeldOut,
    *,
    form: str = "auto",
    groups: Mapping[str, str] | None = None,
    output: Path | None = None,
    num_processes: int = 1,
    progress: bool = False,
) -> Calibration:
    """Fit a map to held-out cases, and measure what it changes on cases that its fit has not seen.

    Args:
        held_out: The cases.
        form: One of ``FORMS``, or ``auto``: see :func:`nnunet_nacl.calibration.crossfit.choose_form`.
        groups: Patient of each case; None: each case its own.
        output: Of a folder: where calibration_map.json will lie; the document of the calibrated cases goes beside it.
        num_processes: Cases measured at the same time.
        progress: Show progress bars on stderr.

    Raises:
        UserError: There are fewer than ``MIN_CASES`` cases, a structure is in none of them, or the cases cannot be
            read.
    """
    from tqdm import tqdm

    options = {"num_processes": num_processes, "progress": progress and "before"}
    place = held_out.first.folder
    before = held_out.evaluate(None, place / "calibration.json" if can_write(place) else None, **options)
    held_out.leave_out(before.problems)
    samples = _draw(held_out, progress)
    cases, structures = list(held_out.files), structures_of(held_out.first.labels)
    _check(cases, before, structures, form, held_out)
    grouped = [groups[case] if groups else case for case in cases]
    codes = list(np.unique(grouped, return_inverse=True)[1])
    parts = parts_of(grouped, [held_out.fold[case] for case in cases] if len(held_out.folders) > 1 else None)

    passes = tqdm(desc="compare forms", unit="pass", leave=False, disable=not progress)

    def sampled() -> Iterator[Voxels]:
        passes.update()
        return (samples[case].voxels() for case in cases)

    def everything() -> Iterator[Voxels]:
        return tqdm(held_out.voxels(), desc="fit", unit="case", total=len(cases), leave=False, disable=not progress)

    scores, maps = compare_forms(sampled, parts, groups=codes)
    chosen = choose_form(scores) if form == "auto" else form
    exact, part_maps = held_out.complete, maps[chosen]
    whole = fit(sampled, chosen, groups=codes)[0]
    passes.close()
    if exact:
        left_out, starts = [None, *left_out_masks(parts).values()], [whole.map, *part_maps.values()]
        whole, *others = fit(everything, chosen, left_out=left_out, starts=starts, groups=codes)
        part_maps = {part: one.map for part, one in zip(part_maps, others)}
    source = held_out.voxels() if exact else sampled()
    sure, changed = map(float, np.sum([_confident_changes(voxels, whole.map) for voxels in source], axis=0))
    part_of = dict(zip(cases, parts))
    by_case = {case: part_maps[part] for case, part in part_of.items()}
    options |= {"progress": progress and "after"}
    effect = _effect(held_out, before, samples, by_case, groups and grouped, exact, output, options)
    named = {case: groups[case] for case in cases} if groups else None
    return Calibration(whole, chosen, scores, part_of, part_maps, structures, effect, sure, changed, exact, named)


def _draw(held_out: HeldOut, progress: bool) -> dict[str, Sample]:
    from tqdm import tqdm

    samples, problems = {}, {}
    for case in tqdm(list(held_out.files), desc="sample", unit="case", disable=not progress):
        try:
            samples[case] = held_out.sample(case)
        except UserError as error:
            problems[case] = str(error)
    held_out.leave_out(problems)
    return samples


def _check(cases: Sequence[str], before: Evaluation, structures: Mapping[str, str], form: str, held_out) -> None:
    if form != "auto" and form not in FORMS:
        raise UserError(f"the form must be auto, {', '.join(FORMS)}, got {form!r}.")
    if len(cases) < MIN_CASES:
        listed = "".join(f"\n  {case}: {problem}" for case, problem in held_out.problems.items())
        raise UserError(
            f"{len(cases)} held-out cases are too few to calibrate, it takes {MIN_CASES}; add folds or cases.{listed}"
        )
    kept = set(cases)
    for key, name in structures.items():
        overlaps = [result.structures[key].overlap for result in before.cases if result.case in kept]
        if form != "temperature" and not any(one.tp + one.fn for one in overlaps):
            raise UserError(
                f"no held-out case has a voxel of {key} {name}, so it cannot get an offset; add cases that have it, or "
                "pass -form temperature."
            )


def _confident_changes(voxels: Voxels, calibration: AffineMap) -> tuple[float, float]:
    """Foreground voxels that were sure before, and how many of them have another label after."""
    weights = torch.ones(voxels.log_odds.shape[1]) if voxels.weights is None else voxels.weights
    identity = AffineMap.identity(len(voxels.log_odds), calibration.regions)
    total = changed = 0.0
    for start in range(0, len(weights), 1 << 18):
        part = slice(start, start + (1 << 18))
        first, second = (one.to_probabilities(voxels.log_odds[:, part].double()) for one in (identity, calibration))
        if calibration.regions:
            sure, other = (first > CONFIDENT).any(0), ((first > CONFIDENT) & (second <= 0.5)).any(0)
        else:
            sure = (first.max(0)[0] > CONFIDENT) & (first.argmax(0) != 0)
            other = sure & (first.argmax(0) != second.argmax(0))
        total += float(weights[part][sure].sum())
        changed += float(weights[part][other].sum())
    return total, changed


def _effect(held_out: HeldOut, before, samples, by_case, groups, exact, output, options) -> dict[str, dict[str, Any]]:
    """What :func:`changes` finds: of all voxels where they are there, else estimates from samples."""
    cases = list(by_case)
    old = case_values(before, cases)
    if exact:
        document = None if output is None else output.parent / "calibrated" / "calibration.json"
        after = held_out.evaluate(by_case, document, **options)
        return changes(old, case_values(after, cases), groups=groups)
    order = held_out.first.dataset_json.get("regions_class_order")
    keys, n_bins = list(structures_of(held_out.first.labels)), held_out.settings.n_bins
    found = [
        estimate_values(samples[case], by_case[case], keys, order, n_bins, before={name: old[name][i] for name in old})
        for i, case in enumerate(cases)
    ]
    new, errors = ({name: [one[name][i] for one in found] for name in old} for i in (0, 1))
    return changes(old, new, errors, groups)
