"""The data set, the networks, and what was measured of them; part `records`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from cases import Cases, Learned, WithVotes, measure_folds, measure_images, read_cases

from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.places import find_references, model_folder
from nnunet_nacl.nnunet.records import Work

CV, ENSEMBLE = "folds", "outer"
"""Kinds of cases, as results.csv calls them."""
RAW, MAP = "as trained", "map"
"""Methods, as results.csv calls them."""


@dataclass(frozen=True)
class Part:
    """Some cases, and what was learned from others.

    Attributes:
        names: Of the cases.
        learning_cases: Names of the validation cases that were learned from, of other patients.
        learned: What these teach.
    """

    names: list[str]
    learning_cases: list[str]
    learned: Learned


@dataclass(frozen=True)
class CaseSet:
    """All cases of one kind.

    Attributes:
        kind: ``CV``, ``ENSEMBLE``, or another scanner.
        cases: Their records.
        parts: The cases in parts, each with what was learned without its patients.
    """

    kind: str
    cases: Cases
    parts: list[Part]


@dataclass(frozen=True)
class Study:
    """The data set, the networks and what was measured of them.

    Attributes:
        task: Folder of the task.
        work: Folder of records.
        dataset, trainer, configuration: Whose networks.
        name: Of the data set, as results.csv calls it.
        structure: The one that is segmented.
        bad: Dice below which a scan is bad where few calibration patients are studied.
        peers: Calibrators of other packages that are measured beside the map.
    """

    task: Path
    work: Path
    dataset: str
    trainer: str
    configuration: str
    name: str
    structure: str
    bad: float
    peers: Sequence[str]

    @property
    def common(self) -> dict[str, str]:
        """Keys that the rows of all parts have."""
        return {
            "dataset": self.name,
            "trainer": self.trainer,
            "configuration": self.configuration,
            "training": f"folds {' '.join(self.trained_folds)}",
            "structure": self.structure,
        }

    def file(self, what: str) -> str:
        """Name of a table beside results.csv, such as lidc_scans.csv of `scans`."""
        return f"{self.name.lower().replace('-', '')}_{what}.csv"

    @cached_property
    def patient(self) -> dict[str, str]:
        """Of each case."""
        return json.loads((self.task / "patients.json").read_text(encoding="utf-8"))

    def model(self, trainer: str) -> Path:
        """nnU-Net's folder of a trainer."""
        return model_folder(
            self.dataset, f"nnUNetTrainer{trainer}", "nnUNetPlans", self.configuration
        )

    def records(self, name: str) -> Path:
        """Folder of records."""
        return self.work / self.trainer / name

    @cached_property
    def trained_folds(self) -> list[str]:
        """Names of the folds that are trained, in order."""
        validations = self.model(self.trainer).glob("fold_*/validation")
        return sorted(path.parent.name.removeprefix("fold_") for path in validations)

    @cached_property
    def folds(self) -> Cases:
        """Validation cases, by single networks."""
        return read_cases(self.records(CV), self.patient)

    @cached_property
    def outer(self) -> Cases | None:
        """Cases in no fold, by the ensemble; None before they were opened."""
        folder = self.records(ENSEMBLE)
        return read_cases(folder, self.patient) if folder.is_dir() else None

    @property
    def scanners(self) -> list[str]:
        """Other scanners, whose images and labels the task has apart."""
        return sorted(path.name for path in (self.task / "shift").glob("*"))

    @cached_property
    def of_scanner(self) -> dict[str, Cases]:
        """By other scanner its cases, by the ensemble; none before they were opened."""
        return {
            scanner: read_cases(self.records(scanner), self.patient)
            for scanner in self.scanners
            if self.records(scanner).is_dir()
        }

    @cached_property
    def parts(self) -> list[Part]:
        """The validation cases in ten parts by patient, with what the other nine teach."""
        names = list(self.folds.records)
        part_of_case = dict(zip(names, assign_cross_fit_folds(self.folds.patients())))
        parts = []
        for part in sorted(set(part_of_case.values())):
            left_out = [name for name in names if part_of_case[name] == part]
            others = [name for name in names if part_of_case[name] != part]
            parts.append(Part(left_out, others, self.folds.learn(others)))
        return parts

    @cached_property
    def all_cases_teach(self) -> Learned:
        """What all validation cases teach."""
        return self.folds.learn(list(self.folds.records))

    def case_sets(self) -> Iterator[CaseSet]:
        """The validation cases, then, once they were opened, the cases in no fold and those of
        other scanners."""
        yield CaseSet(CV, self.folds, self.parts)
        outer = {} if self.outer is None else {ENSEMBLE: self.outer}
        for kind, cases in (outer | self.of_scanner).items():
            part = Part(list(cases.records), list(self.folds.records), self.all_cases_teach)
            yield CaseSet(kind, cases, [part])


@dataclass(frozen=True)
class OneManufacturer(Study):
    """The validation cases of a study as if those of one manufacturer were all that is learned
    from: the others are cases of other scanners, though the networks were trained on some of each.

    Attributes:
        manufacturer: Whose cases teach, as scans.csv of the task calls it.
    """

    manufacturer: str

    @cached_property
    def manufacturer_of(self) -> dict[str, str]:
        """Of each patient."""
        scans = pd.read_csv(self.task / "scans.csv", dtype=str)
        return dict(zip(scans["patient"], scans["manufacturer"]))

    @cached_property
    def cases_of_manufacturer(self) -> dict[str, Cases]:
        """The validation cases by manufacturer."""
        records: dict[str, dict[str, CaseRecord]] = {}
        for name, record in read_cases(self.records(CV), self.patient).records.items():
            records.setdefault(self.manufacturer_of[self.patient[name]], {})[name] = record
        return {name: Cases(records[name], self.patient) for name in sorted(records)}

    @property
    def scanners(self) -> list[str]:
        """The other manufacturers."""
        return [name for name in self.cases_of_manufacturer if name != self.manufacturer]

    @cached_property
    def folds(self) -> Cases:
        """The validation cases of the manufacturer."""
        return self.cases_of_manufacturer[self.manufacturer]

    @cached_property
    def outer(self) -> None:
        """Cases in no fold are not looked at."""
        return None

    @cached_property
    def of_scanner(self) -> dict[str, Cases]:
        """The validation cases of each other manufacturer."""
        return {name: self.cases_of_manufacturer[name] for name in self.scanners}


def make_records(study: Study, *, with_outer: bool) -> None:
    """Part `records`: measures the validation cases and, if asked for, the cases in no fold and
    those of other scanners.

    Args:
        study: Whose cases.
        with_outer: Whether to open the cases in no fold and those of other scanners.
    """
    model = study.model(study.trainer)
    measure_folds(model, work_of(study, CV), study.records(CV))
    if with_outer:
        dataset = model.parent.name
        outer_cases = json.loads((study.task / "outer_test.json").read_text(encoding="utf-8"))
        measure_images(
            model,
            work_of(study, ENSEMBLE),
            study.records(ENSEMBLE),
            images=raw_images(dataset),
            truth=find_references(dataset, model),
            cases=outer_cases,
        )
        for scanner in study.scanners:
            of_scanner = study.task / "shift" / scanner
            measure_images(
                model,
                work_of(study, scanner),
                study.records(scanner),
                images=of_scanner / "images",
                truth=of_scanner / "labels",
            )


def work_of(study: Study, kind: str) -> Work:
    """What is measured of each case of a kind; votes where the task has those of its kind."""
    votes = study.task / "votes"
    if not votes.is_dir() or kind in study.scanners:
        return Work(with_sample=True)
    return WithVotes(with_sample=True, votes=votes, counts=study.records(f"votes_{kind}"))


def raw_images(dataset: str) -> Path:
    """nnU-Net's folder of images."""
    from nnunetv2.paths import nnUNet_raw

    return Path(nnUNet_raw) / dataset / "imagesTr"
