"""The tables of a study with several trainings of each loss, on cases that none of them has seen.

    python docs/results/study_tables.py DOCUMENT.csv [DOCUMENT.csv ...] [--groups REGEX]

A DOCUMENT is what study_measure.py kept of one method; the first is the one that the others are compared with. Prints
Markdown: means of single networks, of the average of all folds, and differences to the first as it is. Intervals of
single networks count cases and trainings as random (crossed), those of the average cases alone; with --groups a
patient's cases are averaged first. Networks that a document lacks are left out of all: methods that were trained on
fewer folds are compared on those.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from crossed import crossed_mean
from study_measure import OF_PROBABILITIES, OF_SEGMENTATION, TREATMENTS

from nnunet_nacl.comparison.entries import STOCK_LABEL
from nnunet_nacl.documents.patient_groups import read_groups

TITLES = {"HD95_mm": "HD95 (mm)", "expected": "error of expected Dice"}
COLUMNS = (*OF_SEGMENTATION[:2], *OF_PROBABILITIES, *OF_SEGMENTATION[2:])
COMPARED = ("Dice", "ECE:foreground", "ECE:union", "ECE:dilated", "ECE:predicted", "ECE:all", "NLL:all", "Brier:all")
NOTICEABLE = 0.005  # of Dice
NETWORKS = {"single": "single networks", "average": "average of the folds"}
BESIDE = ("Dice", "ECE:foreground", "ECE:predicted", "expected")
SUMMARY = ("Dice", "HD95_mm", "ECE:foreground", "ECE:dilated", "ECE:predicted", "ECE:all", "NLL:all", "expected")
GROUPS = {"Dataset027_ACDC": "^(patient[0-9]+)"}
"""Data set -> patient in a case's name, where a patient has several cases."""

DECIMALS = {"HD95_mm": 2, "ECE:all": 4, "NLL:all": 4, "Brier:all": 4, "Dice": 4}


def title(column: str) -> str:
    """Heading of a column."""
    return TITLES.get(column, column.replace(":", " "))


def labels_of(documents: Sequence[str]) -> list[str]:
    """Name of each method for people, from the documents' names: the loss, and the tokens that not all share.

    ``anneal`` belongs to the loss. Tokens that the package no longer knows are in some of them.
    """
    split = [name.split("_") for name in documents]
    shared = set.intersection(*({*tokens} - {"anneal"} for _, *tokens in split))
    labels = []
    for loss, *tokens in split:
        own = " ".join(token for token in tokens if token not in shared)
        own = own.replace("late anneal", "annealed late").replace("anneal ", "annealed, ")
        own = re.sub("anneal$", "annealed", own)
        labels.append(
            STOCK_LABEL if loss == "DiceCE" and not own else loss.replace("Dice", "Dice + ") + ", " * bool(own) + own
        )
    return labels


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, numbers to the right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("  ", " ") for line in lines)


def _shown(treatment: str) -> tuple[str, ...]:
    """The decision changes no probabilities."""
    return OF_SEGMENTATION if "decided" in treatment else COLUMNS


class Study:
    """The values of all documents.

    Args:
        paths: One document per method.
        groups: See ``--groups``.

    Raises:
        ValueError: Two documents are not of the same cases.
    """

    def __init__(self, paths: Sequence[Path], groups: str | None) -> None:
        self.name = paths[0].parent.name.partition("_")[2]
        self.labels = labels_of([path.stem for path in paths])
        frames = [pd.read_csv(path, dtype={"network": str, "case": str}) for path in paths]
        for path, frame in zip(paths, frames):
            if set(frame["case"]) != set(frames[0]["case"]):
                raise ValueError(f"{path} and {paths[0]} are not of the same cases")
        self.n_cases = frames[0]["case"].nunique()
        patient = read_groups(groups, sorted(frames[0]["case"].unique()))
        self._values = {
            label: frame.assign(patient=frame["case"].map(patient))
            .groupby(["treatment", "network", "patient"])[list(COLUMNS)]
            .mean()
            for label, frame in zip(self.labels, frames)
        }
        self._cases = {
            label: frame.set_index(["treatment", "network", "case"])["Dice"]
            for label, frame in zip(self.labels, frames)
        }
        self.n_patients = len(set(patient.values()))
        networks = [name for name in frames[0]["network"].unique() if all((f["network"] == name).any() for f in frames)]
        self.chosen = {"single": [name for name in networks if name != "average"]}
        if "average" in networks:
            self.chosen["average"] = ["average"]

    def networks(self, which: str) -> Sequence[str]:
        """``single`` for the networks that all documents have, ``average``, or the number of one of their folds.

        Raises:
            ValueError: Not all documents have it.
        """
        folds = {name: [name] for name in self.chosen["single"]}
        found = (self.chosen | folds).get(which)
        if not found:
            raise ValueError(f"not all of {', '.join(self.labels)} have the network '{which}'")
        return found

    def values(self, label: str, treatment: str, networks: Sequence[str]) -> np.ndarray:
        """(networks, patients, columns)"""
        found = self._values[label].loc[treatment]
        return np.stack([found.loc[network].sort_index().to_numpy() for network in networks])

    def means(self, networks: Sequence[str]) -> str:
        """Every method and treatment."""
        rows = []
        for label in self.labels:
            for treatment, name in TREATMENTS.items():
                found, shown = self.values(label, treatment, networks), _shown(treatment)
                values = (self.mean(found, column) if column in shown else "" for column in COLUMNS)
                rows.append([f"... {name}" if name else label, *values])
        return table(["loss", *map(title, COLUMNS)], rows)

    def differences(self, networks: Sequence[str]) -> str:
        """Of every method and treatment to the first method as it is."""
        first, rows = self.values(self.labels[0], "pred", networks), []
        for label in self.labels:
            for treatment, name in TREATMENTS.items():
                change, shown = self.values(label, treatment, networks) - first, _shown(treatment)
                if (label, treatment) == (self.labels[0], "pred"):
                    shown = ()
                values = (self.interval(change, column) if column in shown else "" for column in COMPARED)
                rows.append([f"... {name}" if name else label, *values])
        return table(["loss", *map(title, COMPARED)], rows)

    def summary(self, networks: Sequence[str]) -> str:
        """Every method as it is, and calibrated and decided: the segmentation and what it was decided from."""
        return table(["loss", *map(title, SUMMARY)], self.summary_rows(networks, SUMMARY))

    def summary_rows(self, networks: Sequence[str], columns: Sequence[str]) -> list[list[str]]:
        """The rows of ``summary``."""
        rows = []
        for label in self.labels:
            for name, decided, probabilities in (
                (label, "pred", "pred"),
                (f"{label}, {TREATMENTS['calibrated_decided']}", "calibrated_decided", "calibrated"),
            ):
                row = [name]
                for column in columns:
                    treatment = decided if column in OF_SEGMENTATION else probabilities
                    row.append(self.mean(self.values(label, treatment, networks), column))
                rows.append(row)
        return rows

    def decisions(self, networks: Sequence[str]) -> str:
        """How many cases the decision lowers or raises by more than ``NOTICEABLE``, raw and calibrated."""
        rows = []
        for label in self.labels:
            row = [label]
            for treatment in ("pred", "calibrated"):
                before, after = (
                    self._cases[label].loc[name].loc[list(networks)] for name in (treatment, f"{treatment}_decided")
                )
                change = (after - before).dropna()
                shares = [f"{100 * np.mean(found):.0f} %" for found in (change < -NOTICEABLE, change > NOTICEABLE)]
                row += [f"{change.mean():+.4f}", *shares]
            rows.append(row)
        return table(
            [
                "loss",
                *(f"{kind}: {what}" for kind in ("raw", "calibrated") for what in ("change", "lowered", "raised")),
            ],
            rows,
        )

    def mean(self, values: np.ndarray, column: str) -> str:
        """Of all networks and patients, (networks, patients, columns), as it is shown."""
        return f"{np.nanmean(values[..., COLUMNS.index(column)]):.{DECIMALS.get(column, 3)}f}"

    def interval(self, differences: np.ndarray, column: str) -> str:
        """Mean difference with its interval, as it is shown."""
        one, n = crossed_mean(differences[..., COLUMNS.index(column)]), DECIMALS.get(column, 3)
        return f"{one.mean:+.{n}f} [{one.low:+.{n}f}, {one.high:+.{n}f}]"


def beside(studies: Sequence[Study], which: str) -> str:
    """The summaries of several data sets in one table, of the networks ``which``.

    Raises:
        ValueError: They have not the same methods.
    """
    if any(study.labels != studies[0].labels for study in studies):
        raise ValueError(f"other methods in each data set: {', '.join(str(study.labels) for study in studies)}")
    rows = [study.summary_rows(study.networks(which), BESIDE) for study in studies]
    header = ["loss", *(f"{study.name}: {title(column)}" for study in studies for column in BESIDE)]
    return table(header, [[same[0][0], *(cell for row in same for cell in row[1:])] for same in zip(*rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, nargs="+")
    parser.add_argument("--groups", help="patient of each case: expression for its name, or a .json file")
    arguments = parser.parse_args()
    study = Study(arguments.documents, arguments.groups)
    for which, networks in study.chosen.items():
        name = NETWORKS[which]
        print(f"\n{name}: {len(networks)} of each loss, {study.n_patients} patients, {study.n_cases} cases")
        print(f"\n{study.means(networks)}")
        print(f"\n{name}, difference to {study.labels[0]} as it is\n\n{study.differences(networks)}")
        print(f"\n{name}: cases whose Dice the decision changes by more than {NOTICEABLE}\n")
        print(study.decisions(networks))


if __name__ == "__main__":
    main()
