"""The paper's own evaluation (Murugesan et al. 2025, section 4) of a calibration.json."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl_paper.files import InputError, read_json, write_json

HELP = "the paper's evaluation of what `nnunet_nacl evaluate` measured (classes only)"

_DESCRIPTION = """\
Reads a calibration.json, which nnunet_nacl's trainers and `nnunet_nacl evaluate` write, and
prints DSC, HD95, ECE and CECE as the paper defines them; writes paper_scores.json beside it. For
comparison with the paper's tables only: each case's DSC, ECE and CECE are rounded to four
decimals; a class that is absent in the truth has DSC 1 and distance 0 whatever was predicted, an
empty prediction distance 0; distances are in voxels.
"""
_DECIMALS = 4
_SUMS = "count confidence correct class_count class_confidence class_positive nll brier".split()


@dataclass(frozen=True)
class PaperScores:
    """One case, or the mean over cases, on the ground-truth foreground.

    It differs from nnunet_nacl's own numbers where those would be misleading: see the text of the
    command. CECE is the mean over the classes 0 to the largest label of the case, so that two cases
    may average different classes.

    Attributes:
        dsc: Dice of each structure.
        hd95_voxels: 95th percentile of the surface distances of each structure, in voxels as if the
            spacing were 1.
        ece: Expected calibration error; NaN where the case has no foreground.
        cece: Class-wise error; NaN where the case has no foreground.
    """

    dsc: dict[str, float]
    hd95_voxels: dict[str, float]
    ece: float
    cece: float


def scores_of(case: Mapping[str, Any]) -> PaperScores:
    """Scores of an entry of ``metric_per_case``, rounded as published."""
    from nnunet_nacl.metrics import BinStats, ece
    from nnunet_nacl.metrics.calibration_error import class_errors

    sums = case["bins"]["foreground"]
    foreground = BinStats(*[sums[name] for name in _SUMS])
    cece = float(class_errors(foreground)[: case["largest_label"] + 1].mean())
    dsc = {}
    hd95_voxels = {}
    for key, structure in case["metrics"].items():
        dsc[key] = _dice(structure["TP"], structure["FP"], structure["FN"])
        # None where the structure is missing in the truth or in the prediction: both count as 0
        hd95_voxels[key] = structure["distances"]["HD95_voxels"] or 0.0
    return PaperScores(
        dsc=dsc,
        hd95_voxels=hd95_voxels,
        ece=round(ece(foreground), _DECIMALS),
        cece=round(cece, _DECIMALS),
    )


def _dice(true_positive: int, false_positive: int, false_negative: int) -> float:
    """Dice as published: 1 where the structure is absent in the truth."""
    if true_positive + false_negative == 0:
        return 1.0
    wrong = false_positive + false_negative
    return round(2 * true_positive / (2 * true_positive + wrong), _DECIMALS)


def mean_scores(cases: Sequence[PaperScores]) -> PaperScores:
    """Mean over cases, at least one; cases without foreground are left out of ECE and CECE."""
    dsc = {}
    hd95_voxels = {}
    for key in cases[0].dsc:
        dsc[key] = _mean_of_defined([case.dsc[key] for case in cases])
        hd95_voxels[key] = _mean_of_defined([case.hd95_voxels[key] for case in cases])
    return PaperScores(
        dsc=dsc,
        hd95_voxels=hd95_voxels,
        ece=_mean_of_defined([case.ece for case in cases]),
        cece=_mean_of_defined([case.cece for case in cases]),
    )


def _mean_of_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def read_scores(path: Path) -> tuple[dict[str, str], dict[str, PaperScores]]:
    """The names of the structures by key, and the scores of each case.

    Args:
        path: A calibration.json.

    Raises:
        InputError: It is none, it has no case, or its structures are regions.
    """
    fix = "give a calibration.json of `nnunet_nacl evaluate`"
    document = read_json(path, fix)
    try:
        if document["regions"]:
            raise InputError(
                f"{path}: the paper's evaluation is defined for classes only; this data set has"
                " regions."
            )
        names = {key: str(value["name"]) for key, value in document["structures"].items()}
        scores = {case["case"]: scores_of(case) for case in document["metric_per_case"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is no calibration.json ({type(error).__name__}: {error}); {fix}."
        ) from None
    if not scores:
        raise InputError(f"{path}: has no case; {fix}.")
    return names, scores


def table_of(names: Mapping[str, str], mean: PaperScores) -> str:
    """The means as text for a terminal."""
    lines = [f"{'':<20}{'DSC':>8}{'HD95 voxels':>13}"]
    for key, name in names.items():
        lines.append(_table_row(name, mean.dsc[key], mean.hd95_voxels[key]))
    mean_dsc = float(np.mean(list(mean.dsc.values())))
    mean_hd95_voxels = float(np.mean(list(mean.hd95_voxels.values())))
    lines.append(_table_row("mean", mean_dsc, mean_hd95_voxels))
    lines += ["", f"foreground: ECE {mean.ece:.4f}, CECE {mean.cece:.4f}"]
    return "\n".join(lines)


def _table_row(name: str, dsc: float, hd95_voxels: float) -> str:
    return f"{name:<20}{dsc:>8.4f}{hd95_voxels:>13.2f}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "document", type=Path, metavar="CALIBRATION.json", help="or the folder that holds it"
    )
    parser.add_argument(
        "-o", type=Path, metavar="FILE", help="default: paper_scores.json beside it"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluates."""
    path = args.document / "calibration.json" if args.document.is_dir() else args.document
    names, scores = read_scores(path)
    mean = mean_scores(list(scores.values()))
    output = args.o or path.with_name("paper_scores.json")
    per_case = {case: asdict(scores_of_case) for case, scores_of_case in scores.items()}
    write_json(output, asdict(mean) | {"per_case": per_case})
    print(f"{path}: {len(scores)} cases\n\n{table_of(names, mean)}\n\nwritten: {output}")
    return 0
