"""Which figures a comparison has, that they are drawn, and that their words hold their numbers."""

from __future__ import annotations

import re

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import replacing
from nnunet_nacl.show.comparison_figures import DescribedFigure, comparison_figures, write_figures
from tests.comparison.synthetic import make_comparison

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}


def figures_of(comparison) -> list[DescribedFigure]:
    return list(comparison_figures(comparison, {dataset.name: {} for dataset in comparison.datasets}))


IDS = [
    "main_differences",
    "reliability_foreground",
    "reliability_predicted",
    "reliability_all",
    "differences",
]


def test_every_figure_says_what_it_shows():
    comparison = make_comparison(THREE, cases=8)
    pictures = figures_of(comparison)
    assert [picture.id for picture in pictures] == IDS
    for picture in pictures:
        assert picture.title and picture.caption.endswith(".") and picture.alt.endswith(".")
        assert "8 cases" in picture.subtitle
    alt = {picture.id: picture.alt for picture in pictures}
    dataset = comparison.datasets[0]
    assert f"CE {comparison.mean(dataset, 'ECE:union', 'nnUNetTrainerCE'):.3f}" not in alt["reliability_foreground"]
    assert "NACL better by" in alt["differences"]
    for text in ("ECE predicted: ", "DSC: "):
        assert alt["main_differences"].count(text) == alt["differences"].count(text) == 1
    assert "HD95" in alt["differences"] and "HD95" not in alt["main_differences"]


def test_figures_are_drawn_with_the_notes(tmp_path):
    drawn = []

    def draw(path, *, title, subtitle, notes, also):
        drawn.append((path.name, title, subtitle, notes, also))
        return path

    figure = DescribedFigure("a", "Dataset001_Made", "Title", "Sub", "Caption.", "Alt.", draw)
    [entry] = write_figures([figure], tmp_path, ["only 4 cases"])
    assert entry["files"] == ["figures/a.png", "figures/a.svg"] and entry["dataset"] == "Dataset001_Made"
    assert drawn == [("a.png", "Title", "Sub", ("only 4 cases",), (".svg",))]


def test_a_full_disk_says_what_to_do(tmp_path):
    def draw(path, **_):
        with replacing(path):
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="a.png: cannot be written .No space left on device.; free some .*kept"):
        write_figures([DescribedFigure("a", "D", "T", "S", "C.", "A.", draw)], tmp_path)


def test_the_notes_stand_on_every_figure_also_with_too_few_cases_for_any_interval(tmp_path):
    comparison = make_comparison(THREE, cases=1, notes=["Only-fold-zero was compared."])
    pictures = figures_of(comparison)
    assert [picture.id for picture in pictures] == IDS
    for picture in pictures:
        path = picture.draw(
            tmp_path / f"{picture.id}.svg",
            title=picture.title,
            subtitle=picture.subtitle,
            notes=tuple(comparison.notes),
        )
        text = path.read_text()
        assert "Only-fold-zero" in text, picture.id
        drawn = " ".join(re.findall("<text[^>]*>([^<]*)</text>", text))
        assert "1 case" in drawn and not re.search(r"\b(nan|inf)\b", f"{drawn} {picture.alt} {picture.caption}".lower())
        if picture.id.endswith("differences"):
            assert picture.alt.count("not tested") == {"differences": 6, "main_differences": 2}[picture.id]
