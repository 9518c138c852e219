"""The tables of the results' pages are those of their documents."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "docs" / "results"


@pytest.fixture
def write_tables(monkeypatch):
    """The script's main function."""
    monkeypatch.syspath_prepend(str(RESULTS))
    main = runpy.run_path(str(RESULTS / "write_tables.py"))["main"]
    return lambda *arguments: main([str(argument) for argument in arguments])


def test_every_table_is_what_its_documents_give(write_tables, capsys) -> None:
    assert write_tables("--check") == 0, capsys.readouterr().out


def test_a_line_at_the_end_of_a_page_gets_its_table(write_tables, tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- table: forms fold Dataset028_EMIDEC/forms -->\n", encoding="utf-8")
    assert write_tables("--check", page) == 1
    assert write_tables(page) == 0
    assert "-->\n\n| map | " in page.read_text(encoding="utf-8")


def test_a_changed_table_is_noticed_and_mended(write_tables, tmp_path) -> None:
    page = tmp_path / "page.md"
    line = "<!-- table: decisions single Dataset004_Hippocampus/{CE,NACL}_20epochs_50iters_adam -->"
    page.write_text(f"# Title\n\n{line}\n\n| loss |\n| :-- |\n| CE |\n\nText.\n", encoding="utf-8")
    assert write_tables("--check", page) == 1
    assert write_tables(page) == 0
    before, after = page.read_text(encoding="utf-8").split("| NACL | ")
    assert before.startswith(f"# Title\n\n{line}\n\n| loss | raw: change") and "| CE | +0." in before
    assert after.count("\n") == 3 and after.endswith(" |\n\nText.\n")
    assert write_tables("--check", page) == 0
