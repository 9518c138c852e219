"""How many patients it takes: of the networks' own scanner (part `patients`), of another (part
`own`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from unittest.mock import patch

import numpy as np
import pandas as pd
from cases import Aim, Cases, Learned
from recall_rows import learned_recall, places_of, sensitive
from rows import Row, put, write_csv
from study import CV, ENSEMBLE, Study

from nnunet_nacl.estimators.fitting import case_loss
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.metrics import groups

SIZES = (20, 40, 80, 160)
"""Numbers of calibration patients."""
N_DRAWS = 100
"""Of patients, at each size."""
FLAGGED = "flagged"
NUM_FOLDS = 5
"""Of a cross-fit, in place of the package's ten: half the time."""
LEAST_FOUND = 0.8
OWN_SIZES = (10, 20, 40, 80)
"""Numbers of calibration patients of another scanner, as long as a third of all are left over."""
N_OWN_DRAWS = 50
RECALL = "-recall 0.9"


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
                chosen = draw_patients(all_patients, size, draw)
                learned = study.folds.learn(study.folds.of(chosen))
                others = study.folds.of(set(all_patients) - chosen)
                draws.append(draw_of(CV, size, draw, study.folds, others, learned, study.bad))
                if study.outer:
                    outer_cases = list(study.outer.records)
                    draws.append(
                        draw_of(ENSEMBLE, size, draw, study.outer, outer_cases, learned, study.bad)
                    )
    table = pd.DataFrame(draws)
    write_csv(study.file("curve_patients"), table, 4)
    put(patients_table(table, study.bad), **study.common)


def draw_patients(patients: Sequence[str], size: int, draw: int) -> set[str]:
    """So many of the patients, by chance, the same at every call for a draw."""
    generator = np.random.default_rng([size, draw])
    return set(generator.choice(np.array(patients), size, replace=False))


def draw_of(
    kind: str,
    size: int,
    draw: int,
    cases: Cases,
    names: list[str],
    learned: Learned,
    bad_below: float,
) -> dict[str, object]:
    """A row of the table of draws: what one draw of calibration patients finds among cases of other
    patients."""
    judged = cases.judge(names, learned, {FLAGGED: Aim(bad=bad_below, find=0.9)})
    return {"cases": kind, "patients": size, "draw": draw, **list_values(judged, bad_below)}


def list_values(judged: pd.DataFrame, bad_below: float) -> dict[str, object]:
    """What a list finds and flags of cases as :meth:`Cases.judge` gives them, NaN where refused."""
    bad = judged.Dice < bad_below
    found_by_patient = judged[FLAGGED][bad].groupby(judged.patient[bad]).mean()
    return {
        "found": found_by_patient.mean(),
        "flagged": judged[FLAGGED].mean(),
        "n_patients": judged.patient.nunique(),
        "n_cases": len(judged),
    }


def patients_table(draws: pd.DataFrame, bad_below: float) -> Iterator[Row]:
    """Means over draws; low and high hold nine of ten. Refused are draws with too few patients for
    any promise."""
    for (kind, size), of_size in draws.groupby(["cases", "patients"], sort=False):
        keys = {
            "cases": kind,
            "method": f"-find 0.9 -bad {bad_below}, {size} patients",
            "n_patients": of_size.n_patients.iloc[0],
            "n_cases": round(of_size.n_cases.mean()),
        }
        yield {
            **keys,
            "quantity": "refused, share of draws",
            "value": of_size.flagged.isna().mean(),
        }
        yield from mean_rows(of_size, ("found", "flagged"), keys)
        found_too_few = of_size.found.dropna() < LEAST_FOUND
        yield {**keys, "quantity": "found below 0.8, share of draws", "value": found_too_few.mean()}


def mean_rows(draws: pd.DataFrame, names: Sequence[str], keys: Row) -> Iterator[Row]:
    """Means of columns over the draws that have a value; low and high hold nine of ten."""
    for name in names:
        values = draws[name].dropna()
        if len(values):
            low, high = values.quantile([0.05, 0.95])
            ends = {"value": values.mean(), "low": low, "high": high}
            yield {**keys, **ends, "quantity": f"{name}, mean over draws"}


def own_rows(study: Study) -> None:
    """Part `own`: what a map gives that was learned from few patients of another scanner, tested on
    its other patients, over draws of patients.

    Maps are shrunk towards that of the validation cases, as `calibrate -i` does. What is learned
    beyond the map is their own: all sizes are above the nine patients that this takes.
    """
    draws = []
    for scanner, cases in study.of_scanner.items():
        all_patients = sorted(set(cases.patients()))
        for size in OWN_SIZES:
            if 3 * size > 2 * len(all_patients):
                continue
            for draw in range(N_OWN_DRAWS):
                chosen = draw_patients(all_patients, size, draw)
                keys = {"cases": scanner, "patients": size, "draw": draw}
                draws.append({**keys, **own_draw(study, cases, chosen)})
    table = pd.DataFrame(draws)
    write_csv(study.file("own_patients"), table, 4)
    put(own_table(table, study.bad), **study.common)


def own_draw(study: Study, cases: Cases, chosen: set[str]) -> dict[str, object]:
    """What a map of some patients of a scanner gives for its other patients.

    Returns:
        What :func:`list_values` has; means over the other cases of whether intervals hold the true
        value, of how wide those of Dice are and of NLL over all voxels, under the own map and under
        that of the validation cases; the mean over patients of the share of voxels missed with
        `-recall 0.9`, NaN where that is refused.
    """
    prior_map = study.all_cases_teach.map
    own = cases.of(chosen)
    others = [name for name in cases.records if cases.patient[name] not in chosen]
    learned = cases.learn(own, prior_map)
    judged = cases.judge(others, learned, {FLAGGED: Aim(bad=study.bad, find=0.9)})
    place = places_of(learned_recall(cases, own)).get(RECALL)
    missed = np.nan
    if place is not None:
        by_case = sensitive(cases, others, place)
        missed = by_case.missed.groupby(by_case.patient).mean().mean()
    return {
        **list_values(judged, study.bad),
        "true Dice in its interval": share_inside(judged, "Dice", "dice"),
        "true volume in its interval": share_inside(judged, "true_volume", "volume"),
        "width of Dice": (judged.dice_high - judged.dice_low).mean(),
        "missed": missed,
        "NLL all": mean_loss(cases, others, learned.map),
        "NLL all, map of the folds": mean_loss(cases, others, prior_map),
    }


def share_inside(judged: pd.DataFrame, true: str, interval: str) -> float:
    """Share of the segmented cases whose true value lies in its interval; NaN without any."""
    true_value = judged[true]
    low = judged[f"{interval}_low"]
    high = judged[f"{interval}_high"]
    is_known = true_value.notna() & low.notna() & (judged.volume > 0)
    is_inside = (low <= true_value) & (true_value <= high)
    return float(is_inside[is_known].mean())


def mean_loss(cases: Cases, names: Sequence[str], calibration: LogOddsMap) -> float:
    """NLL over all voxels under a map, the mean over cases."""
    return float(np.mean([case_loss(cases.voxels[name], calibration) for name in names]))


def own_table(draws: pd.DataFrame, bad_below: float) -> Iterator[Row]:
    """Means over draws, low and high hold nine of ten; and in which share of the draws a promise is
    refused."""
    described = ("cases", "patients", "draw", "n_patients", "n_cases")
    quantities = [name for name in draws if name not in described]
    for (kind, size), of_size in draws.groupby(["cases", "patients"], sort=False):
        keys = {
            "cases": kind,
            "method": f"own map, {size} patients",
            "n_patients": of_size.n_patients.iloc[0],
            "n_cases": round(of_size.n_cases.mean()),
        }
        for option, name in ((f"-find 0.9 -bad {bad_below}", FLAGGED), (RECALL, "missed")):
            share = of_size[name].isna().mean()
            yield {**keys, "quantity": f"{option} refused, share of draws", "value": share}
        yield from mean_rows(of_size, quantities, keys)
