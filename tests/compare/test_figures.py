"""Which figures a comparison has, that they are drawn, and that their words hold their numbers."""

from __future__ import annotations

import re

from nnunet_nacl.compare.figures import write_figures
from tests.compare.synthetic import make_comparison

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}
KINDS = ["main_differences", "reliability_foreground", "reliability_predicted", "reliability_all", "differences"]


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
