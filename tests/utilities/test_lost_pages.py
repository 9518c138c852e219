"""A page that cannot be made costs itself alone: all other files are whole, and the reason is
told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.utilities import rendering
from tests.nnunet.untrained import make_model, make_scans, predict
from tests.review_tables import read_list
from tests.runs.folders import read, write_image
from tests.runs.predictions import SPACING_MM, predictions_in


@pytest.fixture
def break_template(monkeypatch):
    """Function that lets a template fail, that of the scan ``case`` alone if one is named."""

    def break_template(name: str, case: str | None = None) -> None:
        get_template = rendering._PAGES.get_template

        class Breaking:
            def __init__(self, template):
                self.template = template

            def render(self, **values) -> str:
                if case is None or values["case"] == case:
                    raise TypeError("such values have no page")
                return self.template.render(**values)

        # templates look up those above them in the same way
        def broken(wanted: str, parent: str | None = None):
            template = get_template(wanted, parent)
            return Breaking(template) if wanted == name else template

        monkeypatch.setattr(rendering._PAGES, "get_template", broken)

    return break_template


def review(folder: Path, output: Path) -> int:
    return main(["review", "-i", str(folder), "-o", str(output), "-np", "1"])


def check_delivered(output: Path, cases: int) -> None:
    """Segmentations, tables and prediction.json are there."""
    assert len(list(output.glob("*.nii.gz"))) == len(read_list(output)) == cases
    assert (
        len(json.loads((output / "prediction.json").read_text(encoding="utf-8"))["scans"]) == cases
    )


def test_the_page_of_a_scan_is_left_out_and_no_page_leads_to_it(
    tmp_path, break_template, monkeypatch, capsys
):
    folder = predictions_in(tmp_path)()
    output = tmp_path / "out"
    break_template("scan.html", case="case_1")
    assert review(folder, output) == 1
    said = "review/case_1.html: the page cannot be made: TypeError: such values have no page"
    assert said in capsys.readouterr().err
    check_delivered(output, 3)
    pages = [
        output / "index.html",
        output / "review" / "case_0.html",
        output / "review" / "case_2.html",
    ]
    assert sorted(output.rglob("*.html")) == sorted(pages)
    assert not [page for page in pages if "case_1.html" in page.read_text(encoding="utf-8")]
    monkeypatch.undo()
    assert review(folder, output) == 0
    assert (output / "review" / "case_1.html").is_file()


def test_the_list_of_a_review_is_lost_alone(tmp_path, break_template, capsys):
    folder = predictions_in(tmp_path)()
    output = tmp_path / "out"
    assert review(folder, output) == 0
    break_template("review.html")
    assert review(folder, output) == 1
    assert "index.html: the page cannot be made: TypeError" in capsys.readouterr().err
    check_delivered(output, 3)
    assert not (output / "index.html").exists(), "that of the earlier run would be out of date"
    assert len(list((output / "review").glob("*.html"))) == 3


def test_the_list_of_a_prediction_is_lost_alone(tmp_path, break_template, capsys):
    model = make_model(tmp_path)
    scans = make_scans(tmp_path / "scans", 2)
    break_template("review.html")
    assert predict(model, scans, tmp_path / "out") == 1
    assert "index.html: the page cannot be made: TypeError" in capsys.readouterr().err
    check_delivered(tmp_path / "out", 2)


def test_the_page_of_an_outcome_is_lost_alone(tmp_path, break_template, capsys):
    folder = predictions_in(tmp_path)()
    output = tmp_path / "out"
    corrected = tmp_path / "corrected"
    corrected.mkdir()
    assert review(folder, output) == 0
    write_image(read(output / "case_0.nii.gz"), corrected / "case_0.nii.gz", SPACING_MM)
    back = ["review", "-back", str(output), "-corrected", str(corrected)]
    assert main(back) == 0
    assert (output / "outcome.html").is_file()
    break_template("outcome.html")
    assert main(back) == 1
    assert "outcome.html: the page cannot be made: TypeError" in capsys.readouterr().err
    assert not (output / "outcome.html").exists()
    assert (
        json.loads((output / "outcome.json").read_text(encoding="utf-8"))["cases"][0]["case"]
        == "case_0"
    )


def test_the_page_of_a_comparison_is_lost_alone(tmp_path, break_template, without_figures, capsys):
    build = predictions_in(tmp_path)
    truths = tmp_path / "truths"
    truths.mkdir()
    methods = [build("ours"), build("theirs", seed=1)]
    for path in methods[0].glob("*.nii.gz"):
        write_image(read(path), truths / path.name, SPACING_MM)
    break_template("page.html")
    output = tmp_path / "compared"
    assert (
        main(
            ["compare", "-i", *map(str, methods), "-gt", str(truths), "-o", str(output), "-np", "1"]
        )
        == 1
    )
    assert "report.html: the page cannot be made: TypeError" in capsys.readouterr().err
    assert not (output / "report.html").exists()
    document = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    assert all((output / file).is_file() for table in document["tables"] for file in table["files"])
