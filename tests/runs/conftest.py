"""Every kind of label definition."""

from __future__ import annotations

import pytest

from nnunet_nacl.runs import evaluate
from tests.runs.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE


@pytest.fixture(params=["classes", "classes_ignore", "regions", "regions_ignore"])
def labels(request):
    """Every kind of label definition."""
    return dict(
        zip(
            ("classes", "classes_ignore", "regions", "regions_ignore"),
            (CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE),
        )
    )[request.param]


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
