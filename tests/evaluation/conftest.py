"""Every kind of label definition."""

from __future__ import annotations

import pytest

from tests.evaluation.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE


@pytest.fixture(params=["classes", "classes_ignore", "regions", "regions_ignore"])
def labels(request):
    """Every kind of label definition."""
    return dict(zip(("classes", "classes_ignore", "regions", "regions_ignore"),
                    (CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE)))[request.param]  # fmt: skip
