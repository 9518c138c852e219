"""The reliability diagram: what it writes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.metrics import BinStats, count_masks
from nnunet_nacl.report.reliability import draw_reliability
from tests.metrics.test_counting import random_classes


def stats(seed: int = 0) -> BinStats:
    return count_masks(*random_classes(seed, 3, (8, 9, 10), 2.0))["all"]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
@pytest.mark.parametrize("methods", [1, 3, 6])
def test_draws_every_number_of_methods(tmp_path, suffix, methods):
    pytest.importorskip("matplotlib")
    path = tmp_path / "new" / f"figure{suffix}"
    by_method = {f"method {i}": stats(i) for i in range(methods)}
    assert draw_reliability(by_method, path, title="A title", subtitle="A subtitle") == path
    content = path.read_bytes()
    assert content.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_svg_states_error_and_voxels(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        path = draw_reliability({"NACL": stats()}, tmp_path / "figure.svg")
    text = path.read_text()
    assert "NACL" in text and "ECE 0." in text and "n = 720" in text


def test_empty_and_region_sums(tmp_path):
    pytest.importorskip("matplotlib")
    probs = np.random.default_rng(0).random((2, 50)).astype(np.float32)
    regions = count_masks(probs, probs > 0.7, regions=True)["all"]
    draw_reliability({"none": BinStats.zeros(3), "regions": regions}, tmp_path / "figure.png")


def test_refuses_what_it_cannot_draw(tmp_path):
    with pytest.raises(ValueError, match="at least one method"):
        draw_reliability({}, tmp_path / "figure.png")
    with pytest.raises(ValueError, match="'.jpg'"):
        draw_reliability({"a": stats()}, tmp_path / "figure.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        draw_reliability({"a": stats()}, tmp_path / "file" / "figure.png")
