"""Every kind of label definition."""

from __future__ import annotations

import pytest

from tests.runs.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE


@pytest.fixture(params=[CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE])
def labels(request) -> dict:
    """Every kind of label definition."""
    return dict(request.param)
