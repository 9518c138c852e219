"""What `nnunet_nacl review -decide dice` prints about its decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunet_nacl.json_files import one_line
from nnunet_nacl.show.text_table import aligned, number

if TYPE_CHECKING:
    from nnunet_nacl.documents.decision_json import DecidedCase, DecidedStructure

_N_BOOTSTRAP = 10_000


def summary_lines(
    cases: Sequence[DecidedCase], names: Mapping[str, str], groups: Mapping[str, str] | None = None
) -> list[str]:
    """Voxels changed, expected and, where there is ground truth, true Dice of each structure, for the terminal.

    Expected Dice is a mean over the cases whose prediction has the structure; one that was removed counts 0. True Dice
    is a mean over the cases where it is defined before and after; it and its difference have 95 % bootstrap intervals
    over cases, or over patients where these are known.
    """
    measured = sum(case.measured for case in cases)
    header = ["structure", "voxels gained", "lost", "expected Dice: predicted", "decided"]
    header += ["true Dice: predicted [95 % interval]", "decided", "difference"] if measured else []
    header += ["cases lower / higher"] if measured else []
    patients = [groups[case.case] for case in cases] if groups else None
    rows = [header]
    for key, name in names.items():
        rows.append([name, *_cells([case.structures[key] for case in cases], measured > 0, patients)])
    lines = [f"{len(cases)} cases decided, {sum(case.n_changed for case in cases)} voxels have another label."]
    lines += aligned(rows, indent="")
    if measured and patients:
        lines.append(f"Intervals are over {len(set(patients))} patients, each drawn with all its cases.")
    if 0 < measured < len(cases):
        lines.append(f"{len(cases) - measured} cases have no ground truth and are not in the true Dice.")
    for key, name in names.items():
        for what, kind in (("removed altogether", "removed"), ("added", "added")):
            if those := [case for case in cases if getattr(case.structures[key], kind)]:
                lines.append(f"{what}: {one_line(name)} in {', '.join(_named(case, key) for case in those)}")
    return lines


def _named(case: DecidedCase, key: str) -> str:
    """A case in which a structure was added or removed; true Dice leaves those out whose truth lacks it."""
    row = case.structures[key]
    lacks = case.measured and math.isnan(row.dice_before if row.added else row.dice_after)
    return one_line(case.case) + (" (not in the truth)" if lacks else "")


def _cells(rows: Sequence[DecidedStructure], measured: bool, patients: Sequence[str] | None) -> list[str]:
    from nnunet_nacl.metrics.bootstrap import mean_interval, without_noise

    present = [row for row in rows if row.voxels_before]
    expected = [[row.expected_dice_before for row in present], [row.expected_dice_after for row in present]]
    cells = [str(sum(row.gained for row in rows)), str(sum(row.lost for row in rows))]
    cells += [number(float(np.mean(np.nan_to_num(values))) if values else float("nan"), 4) for values in expected]
    if not measured:
        return cells
    dice = np.array([(row.dice_before, row.dice_after) for row in rows])
    defined = ~np.isnan(dice).any(1)
    before, after = dice[defined].T
    if not len(before):
        return [*cells, "-", "-", "-", "0 / 0"]
    change = without_noise(after - before)
    groups = None if patients is None else np.asarray(patients)[defined].tolist()
    for values, sign in ((before, ""), (after, ""), (after - before, "+")):
        found = mean_interval(values, n_bootstrap=_N_BOOTSTRAP, seed=0, groups=groups)
        mean, low, high = (number(value, 4, sign) for value in (found.mean, found.low, found.high))
        cells.append(mean if np.isnan(found.low) else f"{mean} [{low}, {high}]")
    return [*cells, f"{(change < 0).sum()} / {(change > 0).sum()}"]
