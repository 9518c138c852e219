"""Measures over the share of the training cases, from the documents of a study.

    python docs/results/study_shares.py FIGURE.png DOCUMENT.csv [DOCUMENT.csv ...] [--groups REGEX]

A DOCUMENT is what study_measure.py kept of one method under one schedule; `train<x>` in its name is the share, 100 %
without it. One line for each method as it is and one calibrated. Intervals as in study_tables.py.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from study_tables import COLUMNS, Study

from nnunet_nacl.comparison.crossed import crossed_mean
from nnunet_nacl.figures.training_share import draw_training_share

DRAWN = {
    "Dice": "higher",
    "ECE:foreground": "lower",
    "ECE:dilated": "lower",
    "ECE:predicted": "lower",
    "NLL:dilated": "lower",
    "NLL:all": "lower",
}
TOKEN = re.compile(r"_train(\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    parser.add_argument("documents", type=Path, nargs="+")
    parser.add_argument("--groups", help="patient of each case: expression for its name, or a .json file")
    parser.add_argument("--subtitle", default="", help="what was trained and measured")
    arguments = parser.parse_args()
    shares: dict[float, list[Path]] = {}
    for path in arguments.documents:
        found = TOKEN.search(path.stem)
        shares.setdefault(float(found[1]) if found else 100.0, []).append(path)
    panels: dict[str, dict[str, list[tuple]]] = {column.replace(":", " "): {} for column in DRAWN}
    for share, paths in shares.items():
        study = Study(paths, arguments.groups)
        networks = study.chosen["single networks"]
        for label in study.labels:
            for treatment, name in {"pred": label, "calibrated": f"{label}, calibrated"}.items():
                values = study.values(label, treatment, networks)
                for column in DRAWN:
                    one = crossed_mean(values[..., COLUMNS.index(column)])
                    line = panels[column.replace(":", " ")].setdefault(name, [])
                    line.append(
                        (share, one.mean, *np.where(np.isfinite([one.low, one.high]), [one.low, one.high], None))
                    )
    better = {column.replace(":", " "): direction for column, direction in DRAWN.items()}
    draw_training_share(
        panels, arguments.figure, better=better, title="Fewer training cases", subtitle=arguments.subtitle
    )


if __name__ == "__main__":
    main()
