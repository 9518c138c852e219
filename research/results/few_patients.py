"""How many patients it takes (part `patients`)."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pandas as pd
from cases import Aim, Cases, Learned
from rows import Row, put, write_csv
from study import CV, ENSEMBLE, Study

from nnunet_nacl.metrics import groups

SIZES = (20, 40, 80, 160)
"""Numbers of calibration patients."""
N_DRAWS = 100
"""Of patients, at each size."""
BAD = 0.5
FLAGGED = "flagged"
NUM_FOLDS = 5
"""Of a cross-fit, in place of the package's ten: half the time."""
LEAST_FOUND = 0.8


def patients_rows(study: Study) -> None:
    """Part `patients`: what a list finds that was learned from few patients, over draws of
    patients."""
    all_patients = sorted(set(study.folds.patients()))
    draws = []
    with patch.object(groups, "MOST_FOLDS", NUM_FOLDS):
        for size in SIZES:
            if size >= len(all_patients):
                continue
            for draw in range(N_DRAWS):
                chosen = set(
                    np.random.default_rng([size, draw]).choice(
                        np.array(all_patients), size, replace=False
                    )
                )
                learned = study.folds.learn(study.folds.of(chosen))
                others = study.folds.of(set(all_patients) - chosen)
                draws.append(draw_of(CV, size, draw, study.folds, others, learned))
                if study.outer:
                    outer_cases = list(study.outer.records)
                    draws.append(draw_of(ENSEMBLE, size, draw, study.outer, outer_cases, learned))
    table = pd.DataFrame(draws)
    write_csv("curve_patients.csv", table, 4)
    put(patients_table(table), **study.common)


def draw_of(
    kind: str, size: int, draw: int, cases: Cases, names: list[str], learned: Learned
) -> dict[str, object]:
    """A row of curve_patients.csv: what one draw of calibration patients finds among cases of other
    patients."""
    judged = cases.judge(names, learned, {FLAGGED: Aim(bad=BAD, find=0.9)})
    bad = judged.Dice < BAD
    found_by_patient = judged[FLAGGED][bad].groupby(judged.patient[bad]).mean()
    return {
        "cases": kind,
        "patients": size,
        "draw": draw,
        "found": found_by_patient.mean(),
        "flagged": judged[FLAGGED].mean(),
        "n_patients": judged.patient.nunique(),
        "n_cases": len(judged),
    }


def patients_table(draws: pd.DataFrame) -> Iterator[Row]:
    """Means over draws; low and high hold nine of ten. Refused are draws with too few patients for
    any promise."""
    for (kind, size), of_size in draws.groupby(["cases", "patients"], sort=False):
        keys = {
            "cases": kind,
            "method": f"-find 0.9 -bad {BAD}, {size} patients",
            "n_patients": of_size.n_patients.iloc[0],
            "n_cases": round(of_size.n_cases.mean()),
        }
        yield {
            **keys,
            "quantity": "refused, share of draws",
            "value": of_size.flagged.isna().mean(),
        }
        for name in ("found", "flagged"):
            values = of_size[name].dropna()
            if len(values):
                low, high = values.quantile([0.05, 0.95])
                ends = {"value": values.mean(), "low": low, "high": high}
                yield {**keys, **ends, "quantity": f"{name}, mean over draws"}
        found_too_few = of_size.found.dropna() < LEAST_FOUND
        yield {**keys, "quantity": "found below 0.8, share of draws", "value": found_too_few.mean()}
