"""Measures over the share of the training cases, from the documents of a study: a figure, and tables as Markdown.

    pip install ./paper  # which draws the figure
    python docs/results/study_shares.py FIGURE.png DOCUMENT.csv [DOCUMENT.csv ...] [--groups REGEX]

A DOCUMENT is what study_measure.py kept of one method under one schedule; `train<x>` in its name is the share, 100 %
without it. The figure has one line for each method as it is and one calibrated; the tables have their means, and the
differences of all methods as they are to the first of their share, as it is and calibrated. Intervals of single
networks in the tables count cases and trainings as random, those of the average of the folds, and of the figure,
cases alone.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from crossed import crossed_mean
from study_tables import COLUMNS, NETWORKS, Study, table, title

from nnunet_nacl.metrics.bootstrap import Interval

DRAWN = {
    "Dice": "higher",
    "ECE:foreground": "lower",
    "ECE:dilated": "lower",
    "ECE:predicted": "lower",
    "NLL:dilated": "lower",
    "NLL:all": "lower",
}
SHOWN = (*(column for column in COLUMNS if column.startswith(("Dice", "ECE", "NLL"))), "Brier:all", "expected")
TREATMENTS = {"pred": "", "calibrated": ", calibrated"}
TOKEN = re.compile(r"_train(\d+)")


def by_share(paths: list[Path], groups: str | None) -> dict[float, Study]:
    """The documents of each share, the largest first."""
    shares: dict[float, list[Path]] = {}
    for path in paths:
        found = TOKEN.search(path.stem)
        shares.setdefault(float(found[1]) if found else 100.0, []).append(path)
    return {share: Study(shares[share], groups) for share in sorted(shares, reverse=True)}


def panels(studies: Mapping[float, Study]) -> dict[str, dict[str, dict[float, Interval]]]:
    """What is drawn: measure -> method -> share -> mean of single networks with its interval over cases."""
    found: dict[str, dict[str, dict[float, Interval]]] = {title(column): {} for column in DRAWN}
    for share, study in reversed(studies.items()):
        for label in study.labels:
            for treatment, suffix in TREATMENTS.items():
                values = study.values(label, treatment, study.networks("single"))
                for column in DRAWN:
                    one = crossed_mean(values[..., COLUMNS.index(column)].mean(axis=0, keepdims=True))
                    line = found[title(column)].setdefault(f"{label}{suffix}", {})
                    line[share] = Interval(one.mean, one.low, one.high, study.n_cases)
    return found


def means(studies: Mapping[float, Study], which: str = "single") -> str:
    """Of the networks ``which``, see :meth:`Study.networks`."""
    rows = []
    for share, study in studies.items():
        for label in study.labels:
            for treatment, suffix in TREATMENTS.items():
                values = study.values(label, treatment, study.networks(which))
                rows.append([f"{share:g} %", f"{label}{suffix}", *(study.mean(values, column) for column in SHOWN)])
    return table(["cases", "loss", *map(title, SHOWN)], rows)


def differences(studies: Mapping[float, Study], which: str) -> str:
    """Of every method as it is to the first of its share; ``which`` as for ``means``."""
    rows = []
    for share, study in studies.items():
        networks, first = study.networks(which), study.labels[0]
        for label in study.labels[1:]:
            for treatment, suffix in TREATMENTS.items():
                change = study.values(label, "pred", networks) - study.values(first, treatment, networks)
                intervals = (study.interval(change, column) for column in DRAWN)
                rows.append([f"{share:g} %", f"{label} as trained - {first}{suffix}", *intervals])
    return table(["cases", "difference", *map(title, DRAWN)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    parser.add_argument("documents", type=Path, nargs="+")
    parser.add_argument("--groups", help="patient of each case: expression for its name, or a .json file")
    parser.add_argument("--subtitle", default="", help="what was trained and measured")
    arguments = parser.parse_args()
    studies = by_share(arguments.documents, arguments.groups)
    print(means(studies))
    for which in next(iter(studies.values())).chosen:
        print(f"\n{NETWORKS[which]}\n\n{differences(studies, which)}")
    better = {title(column): direction for column, direction in DRAWN.items()}
    subtitle = arguments.subtitle
    from nnunet_nacl_paper.figures.panels import draw_training_share

    title_of = {"title": "Fewer training cases", "subtitle": subtitle}
    draw_training_share(panels(studies), arguments.figure.with_suffix(""), better=better, **title_of)


if __name__ == "__main__":
    main()
