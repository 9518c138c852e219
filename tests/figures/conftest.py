"""What the tests of figures share: the figures that were saved, and methods with long names."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

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
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **keywords: figures.append(self))
    return figures
