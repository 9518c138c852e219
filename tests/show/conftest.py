"""The figures that were saved, methods with long names, and studies to make pages of."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from nnunet_nacl.show.page import make_page
from tests.cases.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE
from tests.show.study import SCRIPT, Study, make_study

LONG = "NACL_lambda0p2_k5_gaussian_sigma2_l2_softmax_sum_100epochs"
METHODS = [
    "CE+Dice (stock)",
    "CE",
    "NACL",
    "SVLS",
    "MbLS",
    "LS",
    "Focal",
    "ECP",
    LONG,
    "NACL+Dice, annealed",
    "NACL m5",
    "a method whose label has many words in it",
    "L" * 60,
]


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """Every figure that would have been saved, in order; its file stays empty."""
    figures: list[Figure] = []

    def save(self: Figure, path: Path, **keywords) -> None:
        figures.append(self)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", save)
    return figures


@pytest.fixture(
    params=[CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE],
    ids=["classes", "ignore", "regions", "regions_ignore"],
)
def labels(request) -> dict:
    return request.param


@pytest.fixture
def study(make_validated) -> Study:
    """Three trainers, two folds of one case each."""
    return make_study(make_validated(cases=1, folds=2))


@pytest.fixture
def hostile_study(make_validated) -> Study:
    """Names, labels and notes that would be HTML if they were not escaped; its page is made."""
    labels = {"background": 0, SCRIPT: 1, "posterior": 2}
    study = make_study(make_validated(labels=labels, cases=2), labels=labels, hostile=True)
    assert make_page(study.data, study.out).problems == []
    return study
