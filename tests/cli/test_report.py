"""`nnunet_nacl report` as a user types it."""

from __future__ import annotations

import pytest

from nnunet_nacl.cli.main import main
from tests.show.study import Study, make_study


@pytest.fixture
def study(make_validated) -> Study:
    return make_study(make_validated(cases=1))


def report(*arguments) -> int:
    return main(["report", *map(str, arguments)])


def test_it_writes_one_page(study, capsys):
    before = {path.name for path in study.out.iterdir()}
    assert report("-o", study.out) == 0
    out = capsys.readouterr().out
    assert "case 1 of 1, case_00" in out and f"written: {study.out / 'report.html'} (0." in out
    assert {path.name for path in study.out.iterdir()} - before == {"report.html"}
    assert "Image and ground truth" in study.page
    assert report("-o", study.out, "--no-gallery") == 0 and "Image and ground truth" not in study.page


def test_what_is_missing_is_listed_and_the_status_is_1(study, capsys):
    assert report("-o", study.out, "-channel", 7) == 1
    error = capsys.readouterr().err
    assert "missing on the page (1)" in error and "no channel 7" in error
    assert "no channel 7" in study.page


def test_what_cannot_be_used_is_one_line(study, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "comparison.json").write_text("{")
    for arguments, words in (
        (("-o", tmp_path / "none"), "no such folder"),
        (("-o", tmp_path / "empty"), "run `nnunet_nacl compare"),
        (("-o", tmp_path / "broken"), "run `nnunet_nacl compare` again"),
        (("-o", study.out, "-channel", -1), "-channel must be 0 or more, got -1"),
    ):
        assert report(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("nnunet_nacl report: error: ") and error.count("\n") == 1 and words in error


def test_an_output_folder_is_needed(capsys):
    with pytest.raises(SystemExit) as caught:
        report()
    assert caught.value.code == 2 and "-o" in capsys.readouterr().err


@pytest.mark.integration
def test_after_compare(study, capsys):
    out = study.out.parent / "comparison"
    trainers = ["nnUNetTrainer", "nnUNetTrainerCE", "nnUNetTrainerNACL"]
    assert main(["compare", "-d", "999", "-c", "3d_fullres", "-tr", *trainers, "-o", str(out)]) == 0
    assert report("-o", out) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Dice + CE (stock)" in page and page.count("<figure>") > 8 and "figure is missing" not in page
