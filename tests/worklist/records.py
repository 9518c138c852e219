"""Records of scans that nobody measured, and a map that has learned what a test says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pandas as pd

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.estimators.flags import Flags
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.settings import ListSettings, Output
from nnunet_nacl.worklist.aims import Aims
from nnunet_nacl.worklist.review_list import ReviewList, review_list
from nnunet_nacl.worklist.run import Run


def structure(
    dice=0.5, pieces=1, members_dice=math.nan, largest=0.9, largest_piece=1.0, members=(), **values
) -> dict:
    """What is measured of a structure: 2 ml, and another Dice than that of the case."""
    row = {
        "predicted_dice": dice,
        "members_dice": members_dice,
        "volume": 2.0,
        "predicted_volume": 2.5,
    }
    row |= {"max_probability": largest, "pieces": pieces, "largest_piece": largest_piece}
    row |= {"network_volume": 2.5, "network_dice": 0.5} | {
        f"volume {name}": v for name, v in zip("pq", members)
    }
    return row | values


def record(case="a", *structures: dict, unit="ml", n_members=1, **known) -> CaseRecord:
    """A case with structures s0, s1, ... of the keys 1, 2, ...; one where none is given."""
    rows = {
        str(i): {"name": f"s{i - 1}"} | row for i, row in enumerate(structures or (structure(),), 1)
    }
    scan = {
        "unit": unit,
        "voxel_volume": 0.001,
        "entropy": 0.7,
        "confidence": 0.8,
        "mutual_information": math.nan,
    }
    scan |= {"n_members": n_members}
    return CaseRecord(case, pd.DataFrame.from_dict(rows, orient="index"), scan, **known)


class Interval:
    """The same interval of every predicted value."""

    def __init__(self, low: float, high: float) -> None:
        self.ends = low, high

    def predict(self, values):
        """(n, 3) values with the interval."""
        return np.column_stack([values, *(np.full(len(values), end) for end in self.ends)])


def calibrator(
    dice=(math.nan, math.nan), volume=(math.nan, math.nan), present=(), always=(), no_better=()
):
    """What a map may have learned of two structures; ``present`` by key, else nothing.

    ``no_better`` are keys of those whose predicted values are no closer than their mean.
    """
    keys = [str(i) for i in range(1, 130)]
    learned = SimpleNamespace(as_deployed=True, scores=SimpleNamespace(always=always))
    learned.no_better = lambda kind: dict.fromkeys(no_better)
    learned.dice, learned.volume = (
        dict.fromkeys(keys, Interval(*dice)),
        dict.fromkeys(keys, Interval(*volume)),
    )
    presence = SimpleNamespace(
        present_probability=lambda key, rows: dict(present).get(key, math.nan)
    )
    quality = SimpleNamespace(
        learned=learned,
        unit="ml",
        may_be_in_pieces=(),
        profiles=None,
        differences=lambda record: record.differences,
        unlike=lambda profile, level: (0.01, "unlike: odd") if profile else (math.nan, ""),
    )
    return SimpleNamespace(quality=quality, presence=presence, log_odds_map=None)


def list_of(
    records: Iterable[CaseRecord],
    known=Calibrator(),
    flags: Flags | None = None,
    *,
    output: Path = Path("out"),
    patients: Mapping[str, str] | None = None,
    document: Mapping[str, object] = MappingProxyType({}),
    problems: Mapping[str, str] = MappingProxyType({}),
    **wanted,
) -> ReviewList:
    """The list of a run that asks for what is ``wanted``."""
    run = Run(
        dataset=Dataset(Path(), {"file_ending": ".nii.gz"}, {}),
        calibrator=known,
        aims=Aims(ListSettings(**wanted), flags),
        writing=Output(output=output),
        patients=patients,
        document=document,
        problems=problems,
    )
    return review_list(records, run)
