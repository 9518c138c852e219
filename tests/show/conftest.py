"""A comparison to make a page of, and a browser."""

from __future__ import annotations

import pytest

from tests.browser import chromium
from tests.show.study import Study, make_study

__all__ = ["chromium"]


@pytest.fixture
def study(tmp_path) -> Study:
    """Three methods on two cases."""
    return make_study(tmp_path / "out")
