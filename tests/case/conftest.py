"""Every kind of label definition."""

from __future__ import annotations

import pytest

from tests.runs.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE

KINDS = {
    "classes": CLASSES,
    "classes_ignore": CLASSES_WITH_IGNORE,
    "regions": REGIONS,
    "regions_ignore": REGIONS_WITH_IGNORE,
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def labels(request) -> dict:
    """Every kind of label definition."""
    return dict(request.param)
