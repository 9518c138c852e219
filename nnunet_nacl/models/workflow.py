"""From held-out cases to a map, what it changes and what it teaches: the cases are read twice, the map sees samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.crossfit import CrossFit, choose_form, cross_fit, parts_of
from nnunet_nacl.calibration.effect import CONFIDENT, changes, confident_changes
from nnunet_nacl.calibration.estimates import estimate_values
from nnunet_nacl.calibration.fitting import FORMS
from nnunet_nacl.calibration.likelihood import Voxels
from nnunet_nacl.calibration.sampling import Sample
from nnunet_nacl.cases.heldout import HeldOut, case_values
from nnunet_nacl.cases.quality_block import DECIDED, quality_rows, rows_of_blocks
from nnunet_nacl.documents.map_file import map_to_json, structures_of
from nnunet_nacl.documents.results import Evaluation
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import can_write
from nnunet_nacl.models.held_out_quality import HeldOutQuality, learn_quality

__all__ = ["MIN_CASES", "Calibration", "calibrate"]

MIN_CASES = 5


@dataclass(frozen=True)
class Calibration:
    """A map and how it was found.

    Attributes:
        form: Of the map.
        by_form: The maps of every form, each fitted to samples of all cases and of all but each part.
        parts: Part of each case.
        structures: Name of each structure by nnU-Net's key.
        effect: Each value before and after, cross-fitted.
        confident: Foreground voxels with a probability above ``CONFIDENT`` before.
        confident_changed: How many of them get another label.
        exact: Whether the values after and the quality are of all voxels; else samples were.
        quality: What was learned about Dice and volumes.
        groups: Patient of each case; None: each case its own.
    """

    form: str
    by_form: dict[str, CrossFit]
    parts: dict[str, str]
    structures: dict[str, str]
    effect: dict[str, dict[str, Any]]
    confident: float
    confident_changed: float
    exact: bool
    quality: HeldOutQuality
    groups: dict[str, str] | None = None

    @property
    def chosen(self) -> CrossFit:
        """The map and those of the parts."""
        return self.by_form[self.form]

    def to_json(self) -> dict[str, Any]:
        """Content of calibration_map.json."""
        fit = self.chosen.fit
        document = map_to_json(fit.map, self.structures)
        for row, *errors in zip(document["structures"], *np.split(fit.standard_errors, 2)):
            row |= dict(zip(("slope_standard_error", "offset_standard_error"), map(float, errors)))
        cases: dict[str, list[str]] = {part: [] for part in self.chosen.part_maps}
        for case, part in self.parts.items():
            cases[part].append(case)
        return document | {
            "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
            "form": self.form,
            "n_cases": len(self.parts),
            "measured_on": "all voxels" if self.exact else "samples of the cases",
            "nll": fit.loss,
            "forms": {form: asdict(one.score) for form, one in self.by_form.items()},
            "confident_voxels": {"threshold": CONFIDENT, "n": self.confident, "n_changed": self.confident_changed},
            "effect": self.effect,
            **({"groups": self.groups} if self.groups else {}),
            "cross_fit": {
                part: {"slopes": list(one.slopes), "offsets": list(one.offsets), "cases": cases[part]}
                for part, one in self.chosen.part_maps.items()
            },
            "quality": self.quality.to_json(),
        }


def calibrate(
    held_out: HeldOut,
    *,
    form: str = "auto",
    groups: Mapping[str, str] | None = None,
    output: Path | None = None,
    as_deployed: bool = False,
    num_processes: int = 1,
    progress: bool = False,
) -> Calibration:
    """Fit a map to samples of held-out cases, and measure what it changes on cases that its fit has not seen.

    Where their probabilities are there, every case is read twice: as it is, and through the map of its part.

    Args:
        held_out: The cases; those that cannot be used are left out.
        form: One of ``FORMS``, or ``auto``: see :func:`nnunet_nacl.calibration.crossfit.choose_form`.
        groups: Patient of each case; None: each case its own.
        output: Of a folder: where calibration_map.json will lie; the document of the calibrated cases goes beside it.
        as_deployed: Whether the cases were predicted as the model is used.
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
    samples = _samples(held_out)
    cases, structures = list(held_out.files), structures_of(held_out.first.labels)
    _check(cases, before, structures, form, held_out)
    patients = [groups[case] if groups else case for case in cases]
    parts = parts_of(patients, [held_out.fold[case] for case in cases] if len(held_out.folders) > 1 else None)

    with tqdm(desc="fit", unit="pass", leave=False, disable=not progress) as passes:

        def sampled() -> Iterator[Voxels]:
            passes.update()
            return (samples[case].voxels() for case in cases)

        by_form = cross_fit(sampled, parts, groups=patients)
        chosen = choose_form({name: one.score for name, one in by_form.items()}) if form == "auto" else form
        sure, changed = confident_changes(sampled(), by_form[chosen].fit.map)
    maps = {case: by_form[chosen].part_maps[part] for case, part in zip(cases, parts)}
    options |= {"progress": progress and "after"}
    if exact := held_out.complete:
        document = None if output is None else output.parent / "calibrated" / "calibration.json"
        after = held_out.evaluate(maps, document, **options)
        held_out.problems |= after.problems  # the map has seen these cases, but what it does to them is not known
        known = {result.case: result for result in after.cases}
        cases = [case for case in cases if case in known]
        patients = [groups[case] if groups else case for case in cases]
        old, new, errors = case_values(before, cases), case_values(after, cases), None
        rows: Any = [
            quality_rows([known[case] for case in cases]),
            rows_of_blocks([known[case].blocks[DECIDED] for case in cases], tuple(structures)),
        ]
    else:
        old = case_values(before, cases)
        new, errors = _estimated(held_out, old, samples, maps)
        blocks = [held_out.sampled_quality(case, samples[case], maps[case]) for case in cases]
        rows = [rows_of_blocks(column, tuple(structures)) for column in zip(*blocks)]
    effect = changes(old, new, errors, patients if groups else None)
    quality = learn_quality(rows, structures, patients, as_deployed=as_deployed, sampled=not exact)
    named = {case: groups[case] for case in maps} if groups else None
    part_of = dict(zip(maps, parts))
    return Calibration(chosen, by_form, part_of, structures, effect, sure, changed, exact, quality, named)


def _samples(held_out: HeldOut) -> dict[str, Sample]:
    """Of the cases that have one; the others are left out."""
    samples, problems = {}, {}
    for case in list(held_out.files):
        try:
            samples[case] = held_out.sample(case)
        except UserError as error:
            problems[case] = str(error)
    held_out.leave_out(problems)
    return samples


def _check(
    cases: Sequence[str], before: Evaluation, structures: Mapping[str, str], form: str, held_out: HeldOut
) -> None:
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


def _estimated(
    held_out: HeldOut,
    before: Mapping[str, Sequence[float]],
    samples: Mapping[str, Sample],
    maps: Mapping[str, AffineMap],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Values of every case after calibration, by name, as its sample tells; and their standard errors."""
    order = held_out.first.dataset_json.get("regions_class_order")
    keys, n_bins = list(structures_of(held_out.first.labels)), held_out.settings.n_bins
    found = [
        estimate_values(samples[case], maps[case], keys, order, n_bins, before={n: before[n][i] for n in before})
        for i, case in enumerate(maps)
    ]
    values, errors = ({name: [one[name][i] for one in found] for name in before} for i in (0, 1))
    return values, errors
