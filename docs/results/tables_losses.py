"""Tables of losses.md: what a loss changes, in segmentations, in calibration and in the end of a training.

A cell has the value of each training of a row, `0.41/0.38`, or one where all are equal as shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from losses_values import AS_TRAINED, MAP, SCORES, Training, change_at_end, settings, structures_begun, trend
from scipy.stats import t
from values import DRAWS, shown, table

from nnunet_nacl.comparison.entries import STOCK_LABEL
from nnunet_nacl.metrics.bootstrap import mean_interval

FORMS = {AS_TRAINED: "as trained", MAP: "with its map"}

CHANGES = {
    "as trained": (AS_TRAINED, AS_TRAINED),
    "both with their maps": (MAP, MAP),
    "as trained less stock with its map": (AS_TRAINED, MAP),
}
"""What is compared: form of the loss, form of nnU-Net's."""


MIN_FREEDOM = 2
"""Degrees of freedom below which an interval over trainings says nothing."""


def joined(cells: Iterable[str]) -> str:
    """A cell of each training; one where all are equal."""
    parts = list(cells)
    return "/".join(parts if len(set(parts)) > 1 else parts[:1])


def counted(loss: str, own: Sequence[Training]) -> str:
    """A loss with the number of its trainings, where there are several."""
    return f"{loss} ({len(own)})" if len(own) > 1 else loss


def losses(folders: Sequence[Path]) -> str:
    """Dice of each structure where it is, how often rare ones are missed and invented, how the validation loss ends.

    Structures that no training finds are left out.
    """
    found = settings(folders)
    names, lines = structures_begun(found), []
    rows = pd.concat(one.structures for of_loss in found.values() for own in of_loss.values() for one in own)
    absent = set(rows["structure"][rows["true volume"] == 0])
    rare = [name for name in names if name in absent]
    header = ["loss", *(f"Dice {name}" for name in names)]
    header += [f"{name} {kind}" for name in rare for kind in ("missed", "invented")] + ["validation loss"]
    for title, of_loss in found.items():
        lines.append([f"**{title}**", *[""] * (len(header) - 1)])
        for loss, own in of_loss.items():
            parts = {name: [one.detected(name) for one in own] for name in names}
            lines.append([counted(loss, own)])
            lines[-1] += [joined(f"{one.dice:.2f}" if one.n_there else "" for one in parts[name]) for name in names]
            for name in rare:
                missed, invented = (joined(str(getattr(x, k)) for x in parts[name]) for k in ("missed", "invented"))
                first = parts[name][0]
                lines[-1].append(f"{missed} of {first.n_there}" if first.n_there else "")
                lines[-1].append(f"{invented} of {first.n_absent}" if first.n_absent else "")
            lines[-1].append(joined(trend(change_at_end(one.curves["validation loss"])) for one in own))
    return table(header, lines)


def loss_calibration(folders: Sequence[Path]) -> str:
    """Scores as trained and with the map of each training, means over cases."""
    lines = []
    for title, of_loss in settings(folders).items():
        lines.append([f"**{title}**", *[""] * (len(SCORES) + 1)])
        for loss, own in of_loss.items():
            for form, name in FORMS.items():
                rows = [one.forms[one.forms["form"] == form] for one in own]
                cells = [joined(f"{each[score].mean():.{n}f}" for each in rows) for score, n in SCORES.items()]
                learned = joined(str(one.map_cases) for one in own) if form == MAP else ""
                lines.append([f"{loss}, {name}", *cells, learned])
    return table(["loss", *SCORES, "cases of the map"], lines)


def loss_differences(folders: Sequence[Path]) -> str:
    """Each loss less nnU-Net's in each setting, paired by case: mean over trainings, with its interval over patients.

    Behind ±: half the 95 % interval over trainings (``seed_variance``), where there are enough of them.

    Raises:
        ValueError: A setting lacks nnU-Net's loss.
    """
    found, cells = settings(folders), {}  # by loss, measure and setting
    values, place = {}, {}
    for title, of_loss in found.items():
        if STOCK_LABEL not in of_loss:
            raise ValueError(
                f"{title}: no training of nnU-Net's loss beside {', '.join(of_loss)}; name its folder, too."
            )
        values[title] = {loss: [one.by_case() for one in own] for loss, own in of_loss.items()}
        place[title] = of_loss[STOCK_LABEL][0].folder.parent
    for title, of_loss in values.items():
        alike = [own for each in values if place[each] == place[title] for own in values[each].values()]
        for loss, own in of_loss.items():
            if loss == STOCK_LABEL:
                continue
            rows, stock = cells.setdefault(loss, {}), of_loss[STOCK_LABEL]
            for dice in (f"Dice {name}" for name in structures_begun(found)):
                if dice in own[0]:
                    rows.setdefault(dice, {})[title] = difference(own, stock, dice, dice, 3, alike)
            for score, digits in SCORES.items():
                for name, forms in CHANGES.items():
                    columns = [f"{score}, {form}" for form in forms]
                    rows.setdefault(f"{score}, {name}", {})[title] = difference(own, stock, *columns, digits, alike)
    lines = []
    for loss, rows in cells.items():
        lines.append([f"**{loss}**", *[""] * len(found)])
        lines += [[measure, *(row.get(title, "") for title in found)] for measure, row in rows.items()]
    return table(["less nnU-Net's loss", *found], lines)


Values = Sequence[pd.DataFrame]
"""Of each training of a loss in a setting a row for each case."""


def seed_variance(column: str, alike: Sequence[Values]) -> tuple[float, int]:
    """Variance over trainings of a mean over cases, and its degrees of freedom.

    Pooled over losses and settings with several trainings, which differ in the seed alone: with the mean x_gt of
    training t of group g,

        s^2 = sum_gt (x_gt - mean_t x_gt)^2 / sum_g (T_g - 1)

    Groups whose trainings are all equal say nothing (a structure that a loss never finds) and are left out.
    """
    groups = [[rows[column].mean() for rows in group if column in rows] for group in alike]
    groups = [group for group in groups if len(set(group)) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    return sum(len(group) * np.var(group) for group in groups) / max(freedom, 1), freedom


def difference(loss: Values, stock: Values, ours: str, theirs: str, digits: int, alike: Sequence[Values] = ()) -> str:
    """A column of a loss less one of nnU-Net's, of the means over trainings: its interval over patients, and trainings.

    Args:
        loss, stock: Their trainings.
        ours, theirs: The columns.
        digits: Decimals.
        alike: Trainings of all losses and settings of the data set.
    """
    first, second = (pd.concat([rows[name] for rows in of], axis=1) for of, name in ((loss, ours), (stock, theirs)))
    change = first.mean(axis=1) - second.mean(axis=1)
    interval = mean_interval(change, n_bootstrap=DRAWS, seed=0, groups=change.index.get_level_values("patient"))
    text = shown(interval.mean, interval.low, interval.high, digits, "+")
    (of_ours, freedom), (of_theirs, other) = (seed_variance(name, alike) for name in (ours, theirs))
    if min(freedom, other) < MIN_FREEDOM:
        return text
    half = t.ppf(0.975, min(freedom, other)) * math.sqrt(of_ours / len(loss) + of_theirs / len(stock))
    return f"{text} ±{half:.{digits}f}"


TABLES: dict[str, Callable[[Sequence[Path]], str]] = {
    one.__name__: one for one in (losses, loss_calibration, loss_differences)
}
