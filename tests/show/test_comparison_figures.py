"""Which figures a comparison has, that they are drawn, and that their words hold their numbers."""

from __future__ import annotations

import re

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.show import comparison_figures as module
from nnunet_nacl.show.comparison_figures import DescribedFigure, figures_of, write_figures
from tests.comparison.synthetic import make_comparison

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}
KINDS = ["main_differences", "reliability_foreground", "reliability_predicted", "reliability_all", "differences"]


def test_every_figure_says_what_it_shows():
    comparison = make_comparison(THREE, cases=8)
    figures = list(figures_of(comparison, comparison.datasets[0], {}))
    assert [figure.kind for figure in figures] == KINDS
    assert all(f.title and f.caption.endswith(".") and f.alt.endswith(".") for f in figures)
    alt = {figure.kind: figure.alt for figure in figures}
    assert "ECE foreground: NACL worse by 0.0615" in alt["differences"]
    assert alt["main_differences"].endswith("p (Holm) below 0.05: none.")


def test_figures_are_drawn_with_the_notes_also_with_too_few_cases_for_any_interval(tmp_path):
    comparison = make_comparison(THREE, cases=1, notes=["Only-fold-zero was compared."])
    [dataset] = comparison.datasets
    entries = write_figures(comparison, {dataset.name: {}}, tmp_path)
    assert [entry["id"] for entry in entries] == KINDS and {entry["dataset"] for entry in entries} == {dataset.name}
    for entry in entries:
        assert entry["files"] == [f"figures/{entry['id']}.{ending}" for ending in ("png", "svg")]
        text = (tmp_path / entry["files"][1]).read_text()
        drawn = " ".join(re.findall("<text[^>]*>([^<]*)</text>", text))
        assert "Only-fold-zero" in drawn and "1 case" in drawn
        assert not re.search(r"\b(nan|inf)\b", f"{drawn} {entry['alt']} {entry['caption']}".lower())


def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    def draw(path, **_):
        raise UserError(f"{path}: cannot be written (No space left on device).")

    monkeypatch.setattr(module, "figures_of", lambda *_: [DescribedFigure("a", "T", "C.", "A.", draw)])
    comparison = make_comparison(THREE)
    with pytest.raises(UserError, match="a.png: cannot be written .*kept"):
        write_figures(comparison, {comparison.datasets[0].name: {}}, tmp_path)
