"""A validated model in nnU-Net's folders, and nnU-Net's variables pointing at it."""

from __future__ import annotations

import pytest

from tests.evaluation.folders import CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE, Model, make_model


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Function that writes a model folder and sets nnU-Net's variables."""

    def build(**arguments) -> Model:
        model = make_model(tmp_path / "nnunet", **arguments)
        for name, value in model.environment.items():
            monkeypatch.setenv(name, value)
        return model

    return build


@pytest.fixture(params=["classes", "classes_ignore", "regions", "regions_ignore"])
def labels(request):
    """Every kind of label definition."""
    return dict(zip(("classes", "classes_ignore", "regions", "regions_ignore"),
                    (CLASSES, CLASSES_WITH_IGNORE, REGIONS, REGIONS_WITH_IGNORE)))[request.param]  # fmt: skip
