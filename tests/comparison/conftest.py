"""A study of three trainers that is made once and copied; and the figures that were saved."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.comparison.models import Study, make_study, measure

TRAINERS = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 2.0, "nnUNetTrainerNACL": 3.0}


@pytest.fixture(scope="session")
def made_study(tmp_path_factory) -> Study:
    """Two folds of three cases, validated and measured by three trainers; tests must not change
    it."""
    study = make_study(
        tmp_path_factory.mktemp("study"), TRAINERS, cases=3, folds=2, shape=(3, 8, 8)
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in study.environment.items():
            patch.setenv(name, value)
        for trainer in TRAINERS:
            for fold in (0, 1):
                measure(study.validation(trainer, fold))
    return study


@pytest.fixture
def study(made_study, tmp_path, monkeypatch) -> Study:
    """A copy, with nnU-Net's variables set."""
    shutil.copytree(made_study.root, tmp_path / "nnunet")
    copy = Study(tmp_path / "nnunet")
    for name, value in copy.environment.items():
        monkeypatch.setenv(name, value)
    return copy


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """Every figure that would have been saved, in order; its file stays empty."""
    figures: list[Figure] = []

    def save(self: Figure, path: Path, **keywords) -> None:
        figures.append(self)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", save)
    return figures
