"""The figures that were saved, methods with long names, and a comparison to make a page of."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.show.study import Study, make_study

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


@pytest.fixture
def study(tmp_path) -> Study:
    """Three methods on two cases."""
    return make_study(tmp_path / "out")
