"""What `predict` would say of each scan (part `learn`), and rows that follow from that (part
`scans`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd
from cases import Aim
from rows import Row, draw_cases, drawn_row, mean_row, put, read_csv, statistic_row, write_csv
from study import MAP, Study

from nnunet_nacl.metrics.risk_coverage import aurc

LIMITS = (0.5, 0.6, 0.7)
"""Dice below which a scan is bad."""
FINDS = (0.8, 0.9, 0.95)
FEWEST_SCANS = 4
"""Bad ones, and others, that an order is judged by."""


AIMS = {
    **{f"-find {find} -bad {bad}": Aim(bad=bad, find=find) for find, bad in product(FINDS, LIMITS)},
    **{f"-miss 0.05 -bad {bad}": Aim(bad=bad, miss=0.05) for bad in LIMITS},
}
"""Aims of the list by the options that ask for them."""
COLUMNS = {
    "Dice": "dice",
    "volume": "volume",
    "true_volume": "true_volume",
    "predicted_dice": "predicted_dice",
    "dice_low": "dice_low",
    "dice_high": "dice_high",
    "predicted_volume": "predicted_volume",
    "volume_low": "volume_low",
    "volume_high": "volume_high",
    "network_dice": "predicted_dice_as_trained",
    "present": "present",
    "network_entropy": "entropy",
    "members_dice": "members_dice",
}
"""Columns of the package's tables, and what lidc_scans.csv and other_scans.csv call them."""


SCAN_TABLES = (
    "lidc_scans.csv",
    "lidcge_scans.csv",
    "lidcgenetworks_scans.csv",
    "busbra_scans.csv",
    "acdc_scans.csv",
    "other_scans.csv",
)
"""Of this folder: of each study what `predict` would say of each scan, and of earlier ones."""


def learn_scans(study: Study) -> None:
    """Part `learn`: the table of what `predict` would say of each scan."""
    tables = []
    for case_set in study.case_sets():
        for part in case_set.parts:
            judged = case_set.cases.judge(part.names, part.learned, AIMS)
            keys = {
                **study.common,
                "cases": case_set.kind,
                "case": judged["case"],
                "patient": judged["patient"],
            }
            values = judged[list(COLUMNS)].rename(columns=COLUMNS).assign(**keys)
            tables.append(values[[*keys, *COLUMNS.values()]].join(judged[list(AIMS)]))
    write_csv(study.file("scans"), pd.concat(tables))


SET = ["dataset", "trainer", "configuration", "training", "cases"]
"""Columns by which the scans of a table fall into sets."""
PREDICTED = "predicted Dice"
PRESENT_AND_PREDICTED = "presence x predicted Dice"
AS_TRAINED = "predicted Dice, as trained"
ENTROPY = "entropy"
TWO_RANKS = "mean of two ranks"
PRESENCE = "presence"
ORDERS = (PREDICTED, PRESENT_AND_PREDICTED, PRESENCE, AS_TRAINED, ENTROPY, TWO_RANKS)
MEMBERS = "members' Dice"
"""Order by the Dice between the members of an ensemble."""
BEST, BY_CHANCE = "best order", "by chance"
AURC, EXCESS_AURC = "AURC", "excess AURC"
SEGMENTED = "segmented scans"
PRESENT = "segmented scans that have the structure"


def scan_rows() -> None:
    """Part `scans`: rows on lists, orders and intervals."""
    for name in SCAN_TABLES:
        table = read_csv(name)
        if table.empty:
            continue
        for keys, scans in table.groupby(SET, sort=False):
            if "bad" in scans:  # one limit a data set
                scans = scans.rename(columns={"flagged": f"-find 0.9 -bad {scans.bad.iloc[0]:g}"})
            common = {column: str(key) for column, key in zip(SET, keys)}
            rows = [*list_rows(scans), *order_rows(scans), *interval_rows(scans)]
            rows += [*area_rows(scans), *agreement_rows(scans)]
            put(rows, **common, structure="")


def list_rows(rows: pd.DataFrame) -> Iterator[Row]:
    """How many bad scans were found: the mean over patients with a bad one; and how many of all
    scans were flagged."""
    options = [name for name in rows if name.startswith(("-find", "-miss"))]
    scans = rows.groupby("case", sort=False).agg(
        {"dice": "min", "patient": "first", **dict.fromkeys(options, "first")}
    )
    for option in options:
        limit = float(option.rpartition(" ")[2])
        judged = scans[scans[option].notna()]
        bad = judged.dice < limit
        flagged = judged[option] == 1
        if not bad.any():
            continue
        found = flagged[bad].groupby(judged.patient[bad]).mean()
        row = mean_row(found, found.index, method=option, quantity="found")
        yield row | {"n_cases": int(bad.sum())}
        yield mean_row(flagged, judged.patient, method=option, quantity="flagged")
        yield mean_row(
            bad & ~flagged, judged.patient, method=option, quantity="bad and not flagged"
        )
        yield mean_row(bad, judged.patient, method=option, quantity="bad")


def orders_of(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a scan: the lowest Dice of its structures, patient, and each order, low where a scan is
    to be looked at.

    Of a structure that was not segmented every predicted Dice counts as the probability that it is
    absent.
    """
    segmented = rows.volume > 0
    present = rows.present.fillna(1.0)
    columns = {
        PREDICTED: np.where(segmented, rows.predicted_dice, 1 - present),
        PRESENT_AND_PREDICTED: np.where(segmented, rows.predicted_dice * present, 1 - present),
        AS_TRAINED: np.where(segmented, rows.predicted_dice_as_trained, 1 - present),
        "Dice": rows.dice,
    }
    if rows.present.notna().any():  # else every scan has every structure
        columns[PRESENCE] = np.where(segmented, present, 1 - present)
    by_case = pd.DataFrame(columns, index=rows.index).groupby(rows["case"], sort=False).min()
    first = rows.groupby("case", sort=False)[["patient", "entropy"]].first()
    by_case[ENTROPY] = -first.entropy.fillna(np.inf)  # nothing segmented: first
    by_case["patient"] = first.patient
    by_case[TWO_RANKS] = by_case[PREDICTED].rank() + by_case[ENTROPY].rank()
    if rows.members_dice.notna().any():
        members = rows.members_dice.where(segmented | rows.members_dice.notna(), 1.0)
        by_case[MEMBERS] = members.groupby(rows["case"], sort=False).min()
    return by_case


def limits_of(rows: pd.DataFrame) -> Sequence[float]:
    """Dice below which a scan counts as bad."""
    return [float(rows.bad.iloc[0])] if "bad" in rows else LIMITS


def order_rows(rows: pd.DataFrame) -> Iterator[Row]:
    """Area under the ROC curve of each order, and the share of the scans that finds nine of ten bad
    ones."""
    scans = orders_of(rows)
    for limit in limits_of(rows):
        bad = (scans.Dice < limit).to_numpy()
        if min(bad.sum(), (~bad).sum()) < FEWEST_SCANS:
            continue
        for order in (*ORDERS, MEMBERS):
            if order not in scans:
                continue
            trust = scans[order].to_numpy()
            method = f"{order}, bad below {limit:g}"
            yield statistic_row(auroc, scans.patient, trust, bad, method=method, quantity="AUROC")
            quantity = "flagged to find 0.9"
            yield statistic_row(
                flagged_to_find, scans.patient, trust, bad, method=method, quantity=quantity
            )


def auroc(weights: np.ndarray, trust: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Probability that a bad scan has less trust than another, ties counting half; NaN without
    both.

    Args:
        weights: (draws, n) how often each scan counts.
        trust: (n,) of each scan.
        bad: (n,) whether it is bad.

    Returns:
        (draws,)
    """
    of_bad = trust[bad][:, None]
    of_good = trust[~bad]
    less = (of_bad < of_good) + (of_bad == of_good) / 2
    sums = np.einsum("db,bg,dg->d", weights[:, bad], less, weights[:, ~bad], optimize=True)
    pairs = weights[:, bad].sum(1) * weights[:, ~bad].sum(1)
    return sums / np.where(pairs, pairs, np.nan)


def area_rows(
    rows: pd.DataFrame, orders: Sequence[str] = (*ORDERS, MEMBERS), which: str = ""
) -> Iterator[Row]:
    """Area under the risk-coverage curve of each order, of the best one and without any; its excess
    over the best one, and the area less that of predicted Dice. Scans without a Dice are left out.

    Args:
        rows: A row for each scan and structure.
        orders: Which orders, where the scans have them.
        which: Words for the quantity's name, where these are some of a set's scans.
    """
    which = f", {which}" if which else ""
    scans = orders_of(rows).dropna(subset="Dice")
    risk = 1 - scans.Dice.to_numpy()
    weights = draw_cases(scans.patient)
    areas = {BEST: areas_of_draws(weights, -risk, risk)}
    areas[BY_CHANCE] = areas_of_draws(weights, np.zeros(len(risk)), risk)
    for order in orders:
        if order in scans:
            areas[order] = areas_of_draws(weights, scans[order].to_numpy(), risk)
    for order, area in areas.items():
        yield drawn_row(area, scans.patient, method=order, quantity=AURC + which)
        if order == BEST:
            continue
        excess = area - areas[BEST]
        yield drawn_row(excess, scans.patient, method=order, quantity=EXCESS_AURC + which)
        if order not in (BY_CHANCE, PREDICTED):
            method = f"{order} less {PREDICTED}"
            difference = area - areas[PREDICTED]
            yield drawn_row(difference, scans.patient, method=method, quantity=AURC + which)


def areas_of_draws(weights: np.ndarray, trust: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """(draws,) area under the risk-coverage curve. Arguments are those of :func:`auroc`, with the
    risk of each scan."""
    counts = weights.astype(int)
    return np.array([aurc(np.repeat(trust, each), np.repeat(risk, each)) for each in counts])


def agreement_rows(rows: pd.DataFrame) -> Iterator[Row]:
    """What the order by the Dice between members tells where a structure is not in every scan: of
    the scans that have it, and beside its volume. Nothing of other sets, or without members."""
    is_one_structure = rows.structure.nunique() == 1
    scans = orders_of(rows)
    if not is_one_structure or MEMBERS not in scans or (rows.true_volume > 0).all():
        return
    is_segmented = rows.volume > 0
    is_present = rows.true_volume > 0
    orders = (PREDICTED, ENTROPY, MEMBERS)
    yield from area_rows(rows[is_segmented], orders, SEGMENTED)
    yield from area_rows(rows[is_segmented & is_present], orders, PRESENT)
    segmented = rows[is_segmented].set_index("case")
    for order in orders:
        trust = scans.loc[segmented.index, order]
        yield {
            "method": order,
            "quantity": f"rank correlation with volume, {SEGMENTED}",
            "value": trust.corr(segmented.volume, method="spearman"),
            "n_patients": segmented.patient.nunique(),
            "n_cases": len(segmented),
        }
    for limit in limits_of(rows):
        is_bad = rows.dice < limit
        if is_bad.any():
            yield mean_row(
                ~is_present[is_bad],
                rows.patient[is_bad],
                method=f"bad below {limit:g}",
                quantity="bad scans without the structure",
            )


def flagged_to_find(
    weights: np.ndarray, trust: np.ndarray, bad: np.ndarray, share: float = 0.9
) -> np.ndarray:
    """Share of the scans to look at, least trusted first, until a share of the bad ones was seen.

    Arguments and result as :func:`auroc`.
    """
    order = np.argsort(trust, kind="stable")
    weights = weights[:, order]
    trust = trust[order]
    bad = bad[order]
    bad_seen = (weights * bad).cumsum(1)
    looked_at = weights.cumsum(1)
    # the first scan with which enough is seen
    last = (bad_seen >= share * bad_seen[:, -1:] - 1e-9).argmax(1)
    # and all that are trusted as little
    last = np.searchsorted(trust, trust[last], side="right") - 1
    return looked_at[np.arange(len(last)), last] / looked_at[:, -1]


def interval_rows(rows: pd.DataFrame) -> Iterator[Row]:
    """How often the 90 % intervals hold the true value, and how wide they are, volumes relative to
    the true one."""
    true_volume = rows.true_volume.to_numpy(float)
    size = np.where(true_volume > 0, true_volume, np.nan)
    is_segmented = (rows.volume > 0).to_numpy()
    for what, name, scale in (("Dice", "dice", 1.0), ("volume", "volume", size)):
        true = rows.dice.to_numpy(float) if what == "Dice" else true_volume
        low = rows[f"{name}_low"].to_numpy(float)
        high = rows[f"{name}_high"].to_numpy(float)
        is_known = ~np.isnan(true + low + high) & is_segmented
        is_inside = (low <= true) & (true <= high)
        held = np.where(is_known, is_inside, np.nan)
        width = np.where(is_known, high - low, np.nan) / scale
        yield mean_row(held, rows.patient, method=MAP, quantity=f"coverage of {what}")
        yield mean_row(width, rows.patient, method=MAP, quantity=f"width of {what}")
