"""Studies to make pages of."""

from __future__ import annotations

import pytest

from nnunet_nacl.show.page import make_page
from tests.evaluation.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE
from tests.page.study import SCRIPT, Study, make_study


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
    assert make_page(study.out).problems == []
    return study
