"""The data set, the networks, and what was measured of them; part `records`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cases import Cases, Learned, WithVotes, measure_folds, measure_outer, read_cases

from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.places import find_references, model_folder

STRUCTURE = "nodule"
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
        kind: ``CV`` or ``ENSEMBLE``.
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
    """

    task: Path
    work: Path
    dataset: str
    trainer: str
    configuration: str

    @property
    def common(self) -> dict[str, str]:
        """Keys that the rows of all parts have."""
        return {
            "dataset": "LIDC",
            "trainer": self.trainer,
            "configuration": self.configuration,
            "training": f"folds {' '.join(self.trained_folds)}",
            "structure": STRUCTURE,
        }

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
        """The validation cases, then, once they were opened, the cases in no fold."""
        yield CaseSet(CV, self.folds, self.parts)
        if self.outer:
            part = Part(list(self.outer.records), list(self.folds.records), self.all_cases_teach)
            yield CaseSet(ENSEMBLE, self.outer, [part])


def make_records(study: Study, *, with_outer: bool) -> None:
    """Part `records`: measures the validation cases and, if asked for, the cases in no fold.

    Args:
        study: Whose cases.
        with_outer: Whether to open the cases in no fold.
    """
    model = study.model(study.trainer)
    measure_folds(model, work_of(study, CV), study.records(CV))
    if with_outer:
        dataset = model.parent.name
        outer_cases = json.loads((study.task / "outer_test.json").read_text(encoding="utf-8"))
        measure_outer(
            model,
            work_of(study, ENSEMBLE),
            study.records(ENSEMBLE),
            images=raw_images(dataset),
            truth=find_references(dataset, model),
            cases=outer_cases,
        )


def work_of(study: Study, kind: str) -> WithVotes:
    """What is measured of each case of a kind."""
    return WithVotes(
        with_sample=True, votes=study.task / "votes", counts=study.records(f"votes_{kind}")
    )


def raw_images(dataset: str) -> Path:
    """nnU-Net's folder of images."""
    from nnunetv2.paths import nnUNet_raw

    return Path(nnUNet_raw) / dataset / "imagesTr"
