"""The figure of what training, calibration and decision change, from the documents of studies on several data sets.

    python docs/results/study_differences.py FIGURE.png --data NAME REGEX DOCUMENT.csv [DOCUMENT.csv ...] [--data ...]

One row of panels for each NAME; its first document is the method that the others are compared with, as it is. REGEX is
the patient in a case's name, '' where each case is one. Averages of the folds; where there is none, the mean
over the single networks. 95 % intervals are over patients: the claim is about these networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from crossed import crossed_mean
from study_tables import COLUMNS, Study

from nnunet_nacl.metrics.bootstrap import Interval
from nnunet_nacl.show.forest_plot import ForestRow, draw_differences

BETTER = {"Dice": "higher", "ECE:foreground": "lower", "ECE:predicted": "lower"}
DECIDED = "calibrated_decided"


def networks_of(study: Study) -> Sequence[str]:
    """The average of the folds, else the single networks."""
    return study.chosen.get("average", study.chosen["single"])


def rows_of(name: str, study: Study) -> list[ForestRow]:
    """Every method as it is, and calibrated and decided; probabilities are those that the decision was made from."""
    first, networks = study.labels[0], networks_of(study)
    reference = study.values(first, "pred", networks)
    rows = []
    for column, better in BETTER.items():
        for label in study.labels:
            for treatment, shown in {"pred": label, DECIDED: f"{label},\ncalibrated and decided"}.items():
                if (label, treatment) == (first, "pred"):
                    continue
                source = "calibrated" if treatment == DECIDED and column != "Dice" else treatment
                difference = (study.values(label, source, networks) - reference).mean(axis=0, keepdims=True)
                one = crossed_mean(difference[..., COLUMNS.index(column)])
                metric = f"{name}: {column.replace(':', ' ')}"
                found = Interval(one.mean, one.low, one.high, study.n_patients)
                rows.append(ForestRow(shown, metric, found, better))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--data", nargs="+", action="append", required=True, metavar="NAME, REGEX or DOCUMENT")
    arguments = parser.parse_args()
    rows, counts = [], []
    for name, regex, *documents in arguments.data:
        study = Study([Path(document) for document in documents], regex or None)
        rows += rows_of(name, study)
        patients = "" if study.n_patients == study.n_cases else f" of {study.n_patients} patients"
        networks = networks_of(study)
        of = "an average of folds" if "average" in networks else f"{len(networks)} network{'s'[: len(networks) > 1]}"
        counts.append(f"{name}: {of} of each, {study.n_cases} test cases{patients}")
    draw_differences(
        rows,
        arguments.figure,
        reference="Dice + CE (stock) as trained",
        title="What a training or a calibration changes",
        subtitle=f"Difference to nnU-Net's loss as trained. {'; '.join(counts)}.",
    )


if __name__ == "__main__":
    main()
