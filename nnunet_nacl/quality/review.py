"""The list of cases to look at first: one row a case, the least certain on top."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import stdev
from typing import Any

from nnunet_nacl.json_files import one_line

__all__ = ["CaseReview", "StructureReview", "csv_text", "in_order", "table_text"]


@dataclass(frozen=True)
class StructureReview:
    """Size of one structure in one case.

    Attributes:
        name: Its name in dataset.json.
        volume: Of the predicted structure, in the case's unit.
        max_probability: Its largest probability anywhere in the image: how near an empty structure came to being
            predicted.
        pieces: Connected pieces of the prediction; voxels that touch at a corner are connected.
        member_volumes: Of each member's own prediction, in the order of the folders.
    """

    name: str
    volume: float
    max_probability: float
    pieces: int
    member_volumes: tuple[float, ...]

    @property
    def volume_sd(self) -> float | None:
        """Sample standard deviation between members; None with one."""
        return stdev(self.member_volumes) if len(self.member_volumes) > 1 else None


@dataclass(frozen=True)
class CaseReview:
    """What the list says about one case.

    Attributes:
        case: Name of the case.
        mean_foreground_entropy: Mean normalised entropy over the voxels of the predicted structures; NaN if there are
            none.
        mean_foreground_confidence: Mean confidence over the same voxels.
        mean_foreground_mutual_information: Likewise; NaN with one member.
        unit: Of the volumes: ``ml``, ``mm2`` in 2D, ``pixels`` without spacing.
        structures: One entry a structure.
        n_members: Number of folders.
    """

    case: str
    mean_foreground_entropy: float
    mean_foreground_confidence: float
    mean_foreground_mutual_information: float
    unit: str
    structures: tuple[StructureReview, ...]
    n_members: int

    @property
    def empty(self) -> bool:
        """Whether nothing at all was predicted."""
        return all(structure.pieces == 0 for structure in self.structures)

    @property
    def empty_structures(self) -> list[str]:
        """Names of the structures that were not predicted."""
        return [structure.name for structure in self.structures if structure.pieces == 0]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        result = {field.name: getattr(self, field.name) for field in fields(self)}
        return result | {"structures": [dict(vars(structure)) for structure in self.structures]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> CaseReview:
        """The reverse of ``to_json``; null is NaN. KeyError, TypeError or ValueError if that is no such object."""
        content = {key: math.nan if value is None else value for key, value in content.items()}
        structures = (s | {"member_volumes": tuple(s["member_volumes"])} for s in content["structures"])
        return cls(**content | {"structures": tuple(StructureReview(**structure) for structure in structures)})


def in_order(reviews: Sequence[CaseReview]) -> list[CaseReview]:
    """Least certain first.

    Empty predictions come before all others, those with the largest probability of any structure first: there the
    network was nearest to predicting something. The others follow by falling mean foreground entropy.
    """

    def key(review: CaseReview) -> tuple:
        if review.empty:
            return (0, -max(structure.max_probability for structure in review.structures), review.case)
        return (1, -review.mean_foreground_entropy, review.case)

    return sorted(reviews, key=key)


def csv_text(reviews: Sequence[CaseReview], members: Sequence[str], problems: Mapping[str, str] | None = None) -> str:
    """The list as CSV, one row a case. A cell is empty where a number is not defined.

    Args:
        reviews: In the order of the rows.
        members: Names of the folders; with two or more each structure has a column for each.
        problems: Why other cases could not be done. Each has a row without a rank at the end: whoever works through
            the list must not miss them.
    """
    rows = [_row(rank, review, members) for rank, review in enumerate(reviews, 1)]
    rows += [{"case": case, "problem": problem} for case, problem in (problems or {}).items()]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    return out.getvalue()


def _row(rank: int, review: CaseReview, members: Sequence[str]) -> dict[str, Any]:
    row = {
        "rank": rank,
        "case": review.case,
        "empty": "yes" if review.empty else "no",
        "empty_structures": "; ".join(review.empty_structures),
        "problem": None,
        "mean_foreground_entropy": review.mean_foreground_entropy,
        "mean_foreground_confidence": review.mean_foreground_confidence,
        "mean_foreground_mutual_information": review.mean_foreground_mutual_information,
        "n_members": review.n_members,
    }
    for s in review.structures:
        several = len(s.member_volumes) > 1
        size, unit = _size(review.unit)
        row |= {
            f"{s.name} {size}_{unit}": s.volume,
            f"{s.name} {size}_sd_{unit}": s.volume_sd,
            f"{s.name} {size}_min_{unit}": min(s.member_volumes) if several else None,
            f"{s.name} {size}_max_{unit}": max(s.member_volumes) if several else None,
            f"{s.name} pieces": s.pieces,
            f"{s.name} max_probability": s.max_probability,
        }
        if several:
            row |= {f"{s.name} {size}_{unit} {name}": volume for name, volume in zip(members, s.member_volumes)}
    return row


def _size(unit: str) -> tuple[str, str]:
    return {"ml": ("volume", "ml"), "mm2": ("area", "mm2")}.get(unit, ("area", unit))


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def table_text(reviews: Sequence[CaseReview], *, rows: int = 10) -> str:
    """The first rows for the terminal."""
    reviews = reviews[:rows]
    several = any(review.n_members > 1 for review in reviews)
    header = ["rank", "case", "empty", "entropy", "confidence"] + (["mutual information"] if several else [])
    header += [one_line(f"{s.name} ({reviews[0].unit})") for s in reviews[0].structures]
    lines = [header]
    for rank, review in enumerate(reviews, 1):
        numbers = [review.mean_foreground_entropy, review.mean_foreground_confidence]
        numbers += [review.mean_foreground_mutual_information] if several else []
        empty = "yes" if review.empty else one_line(", ".join(review.empty_structures)) or "-"
        lines.append([str(rank), one_line(review.case), empty])
        lines[-1] += ["-" if math.isnan(x) else f"{x:.3f}" for x in numbers]
        for s in review.structures:
            lines[-1].append(f"{s.volume:.4g}" + (f" +- {s.volume_sd:.2g}" if s.volume_sd is not None else ""))
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [
        "  ".join(cell.ljust(w) if i in (1, 2) else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in text)
