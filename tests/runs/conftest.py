"""Every kind of label definition."""

from __future__ import annotations

import pytest

from nnunet_nacl.runs import evaluate
from tests.runs.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE

KINDS = {
    "classes": CLASSES,
    "classes_ignore": CLASSES_WITH_IGNORE,
    "regions": REGIONS,
    "regions_ignore": REGIONS_WITH_IGNORE,
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def labels(request):
    """Every kind of label definition."""
    return dict(request.param)


@pytest.fixture
def measured(monkeypatch):
    """Names of the cases that are measured."""
    names, original = [], evaluate.measure
    monkeypatch.setattr(
        evaluate,
        "measure",
        lambda files, *rest: names.append(files.case) or original(files, *rest),
    )
    return names
