"""The tables of the results' pages are those of their documents."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def write_tables(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(RESULTS / "write_tables.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_every_table_is_what_its_documents_give() -> None:
    found = write_tables("--check")
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_line_at_the_end_of_a_page_gets_its_table(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- table: forms fold Dataset028_EMIDEC/forms -->\n", encoding="utf-8")
    assert write_tables("--check", page).returncode == 1
    assert write_tables(page).returncode == 0
    assert "-->\n\n| map | " in page.read_text(encoding="utf-8")


def test_a_changed_table_is_noticed_and_mended(tmp_path) -> None:
    page = tmp_path / "page.md"
    line = "<!-- table: decisions single Dataset004_Hippocampus/{CE,NACL}_20epochs_50iters_adam -->"
    page.write_text(f"# Title\n\n{line}\n\n| loss |\n| :-- |\n| CE |\n\nText.\n", encoding="utf-8")
    assert write_tables("--check", page).returncode == 1
    assert write_tables(page).returncode == 0
    before, after = page.read_text(encoding="utf-8").split("| NACL | ")
    assert before.startswith(f"# Title\n\n{line}\n\n| loss | raw: change") and "| CE | +0." in before
    assert after.count("\n") == 3 and after.endswith(" |\n\nText.\n")
    assert write_tables("--check", page).returncode == 0
