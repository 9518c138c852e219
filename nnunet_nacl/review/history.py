"""What the lists of several runs say over time: how good segmentations can be expected to be, how many are flagged."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

import numpy as np

from nnunet_nacl.documents.map_file import read_record
from nnunet_nacl.documents.prediction_json import DOCUMENT
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_csv_text
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.review.review_list import REVIEW, SCANS, STRUCTURES

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Run:
    """One output folder of `predict` or `review`.

    Attributes:
        folder: It.
        created: When it was made, ISO 8601.
        n_scans: Of its list.
        low: 5 % quantile of the scans' scores, see :mod:`nnunet_nacl.calibration.scan_score`, nothing being bad; NaN
            where no scan has one.
        median: Of these.
        high: 95 % quantile.
        flagged: Share of the scans with a reason to look.
        unlike: Share of those compared that are unlike the calibration scans; NaN where none was compared.
        calibration_low: 5 % quantile of the calibration scans' scores; NaN where their map is gone or tells none.
        calibration_median: Of these.
        calibration_high: 95 % quantile.
    """

    folder: str
    created: str
    n_scans: int
    low: float
    median: float
    high: float
    flagged: float
    unlike: float
    calibration_low: float = math.nan
    calibration_median: float = math.nan
    calibration_high: float = math.nan


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of output folders, the oldest first; UserError where one is none of this version."""
    return sorted(map(_read_run, folders), key=lambda run: datetime.fromisoformat(run.created))


def history_csv_text(runs: Sequence[Run]) -> str:
    """history.csv: a row for each run."""
    return to_csv_text([field.name for field in fields(Run)], [list(vars(run).values()) for run in runs])


def _read_run(folder: Path) -> Run:
    document = read_dict(folder / DOCUMENT)
    try:
        flags, used = document["flags"] or {}, document["calibration_map"]
        created, bad = str(document["created"]), {name: float(value) for name, value in flags.get("bad", {}).items()}
        datetime.fromisoformat(created)
        rows = [row for row in read_rows(folder / REVIEW) if row["rank"]]
        lowest: dict[str, float] = {}
        for row in read_rows(folder / STRUCTURES):
            if row["score"]:
                value = float(row["score"]) + bad.get(row["structure"], 0.0)
                lowest[row["case"]] = min(value, lowest.get(row["case"], math.inf))
        compared = [bool(row["unlike"]) for row in read_rows(folder / SCANS) if row["unlike_p"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: not an output folder of this version ({error!r}); make its list again.") from None
    if not rows:
        raise UserError(f"{folder}: its list has no scan.")
    scores, calibration = _quantiles(list(lowest.values())), _of_calibration(used["file"] if used else None, bad)
    return Run(
        str(folder),
        created,
        len(rows),
        *scores,
        sum(row["flag"] == "yes" for row in rows) / len(rows),
        sum(compared) / len(compared) if compared else math.nan,
        *calibration,
    )


def _of_calibration(path: str | None, counted: Collection[str]) -> tuple[float, float, float]:
    """Quantiles of the calibration scans' scores, of nnU-Net's labels; NaN where the map is gone or tells none."""
    try:
        record = read_record(Path(path or ""))
        scores = record.learned["argmax"].scores
    except (UserError, KeyError):
        return _quantiles([])
    keys = [key for key, name in record.names.items() if not counted or name in counted]
    return _quantiles(scores.of_scans(dict.fromkeys(keys, 0.0)).tolist() if scores else [])


def _quantiles(values: list[float]) -> tuple[float, float, float]:
    known = [value for value in values if not math.isnan(value)]
    low, median, high = np.quantile(known, QUANTILES).tolist() if known else [math.nan] * len(QUANTILES)
    return low, median, high


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of one of the list's tables; UserError where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
