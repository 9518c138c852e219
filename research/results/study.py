"""The data set, the networks, and what was measured of them; part `records`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from cases import Cases, Learned, WithVotes, measure_folds, measure_images, read_cases

from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.folders import find_references, model_folder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel

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
class ImageSet:
    """Images of one kind, which the ensemble predicts.

    Attributes:
        kind: ``ENSEMBLE``, or another scanner.
        images: Their folder.
        truth: Folder of their labels.
        cases: The images that are meant; None: all of the folder.
    """

    kind: str
    images: Path
    truth: Path
    cases: Sequence[str] | None = None


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

    def patients_or_scans(self, names: Iterable[str]) -> list[str]:
        """The patient of each of some cases; of a task without patients.json every scan is one."""
        has_patients = (self.task / "patients.json").is_file()
        return [self.patient[name] if has_patients else name for name in names]

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
    def outer_names(self) -> list[str]:
        """Names of the cases in no fold."""
        return json.loads((self.task / "outer_test.json").read_text(encoding="utf-8"))

    def images_of_dataset(self, kind: str, names: Sequence[str]) -> ImageSet:
        """Some images of nnU-Net's data set."""
        model = self.model(self.trainer)
        dataset = model.parent.name
        truth = find_references(dataset, model)
        return ImageSet(kind, raw_images(dataset), truth, names)

    def image_sets(self) -> Iterator[ImageSet]:
        """The cases in no fold, and those of other scanners."""
        yield self.images_of_dataset(ENSEMBLE, self.outer_names)
        for scanner in self.scanners:
            folder = self.task / "shift" / scanner
            yield ImageSet(scanner, folder / "images", folder / "labels")

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
class ByManufacturer(Study):
    """A study that learns from the patients of one manufacturer's scanners.

    Attributes:
        manufacturer: Whose cases teach, as scans.csv of the task calls it.
    """

    manufacturer: str

    @cached_property
    def manufacturer_of(self) -> dict[str, str]:
        """Of each patient."""
        scans = pd.read_csv(self.task / "scans.csv", dtype=str)
        return dict(zip(scans["patient"], scans["manufacturer"]))

    def of_manufacturer(self, manufacturer: str, names: Iterable[str]) -> list[str]:
        """Those of some cases whose patients were scanned by a manufacturer."""
        return [name for name in names if self.manufacturer_of[self.patient[name]] == manufacturer]


@dataclass(frozen=True)
class OneManufacturer(ByManufacturer):
    """The validation cases of a study as if those of one manufacturer were all that is learned
    from: the others are cases of other scanners, though the networks were trained on some of each.
    """

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


@dataclass(frozen=True)
class NetworksOfOneManufacturer(ByManufacturer):
    """Networks that were trained on the patients of one manufacturer alone: the ensemble predicts
    those of the others, whether a fold or the outer test has them, since it has seen none."""

    @cached_property
    def folds(self) -> Cases:
        """Validation cases, by single networks; ValueError where some are of another manufacturer,
        since then the networks of the other folds were trained on them."""
        cases = read_cases(self.records(CV), self.patient)
        own = set(self.of_manufacturer(self.manufacturer, cases.records))
        others = [name for name in cases.records if name not in own]
        if others:
            raise ValueError(
                f"{len(others)} validation cases, such as {others[0]}, are not of"
                f" {self.manufacturer}: these networks were trained on other manufacturers, too."
            )
        return cases

    @property
    def scanners(self) -> list[str]:
        """The other manufacturers."""
        manufacturers = {self.manufacturer_of[patient] for patient in self.patient.values()}
        return sorted(manufacturers - {self.manufacturer})

    def image_sets(self) -> Iterator[ImageSet]:
        """The manufacturer's cases in no fold, and all cases of each other manufacturer."""
        own = self.of_manufacturer(self.manufacturer, self.outer_names)
        yield self.images_of_dataset(ENSEMBLE, own)
        for manufacturer in self.scanners:
            names = self.of_manufacturer(manufacturer, self.patient)
            yield self.images_of_dataset(manufacturer, names)


def make_records(study: Study, *, with_outer: bool) -> None:
    """Part `records`: measures the validation cases and, if asked for, the cases in no fold and
    those of other scanners.

    Args:
        study: Whose cases.
        with_outer: Whether to open the cases in no fold and those of other scanners.
    """
    model = study.model(study.trainer)
    measure_folds(model, work_of(study, CV), study.records(CV))
    if not with_outer:
        return
    trained_model = TrainedModel.open(model)
    for image_set in study.image_sets():
        measure_images(
            trained_model,
            work_of(study, image_set.kind),
            study.records(image_set.kind),
            images=image_set.images,
            truth=image_set.truth,
            cases=image_set.cases,
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
