"""Every number of the pages has a source, and docs/results/write_tables.py notices when one does not hold any more."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pages import RESULTS, ROOT, write_tables

PAGE = """# Times

<!-- table: performance performance/times -->

| step | scans | CPU s | form |
| :-- | --: | --: | --: |
| predict | 20 | 32.5 | 2D |
| predict | 10 | 99.1 | 3D |

It took 32.5 s for
20 scans in 2D, 30 in all; a level of 0.05, and `7.5` in code.

<!-- cells: performance performance/times -->

| step | form | CPU s |
|:--|--:|--:|
| predict | 3D | 99.1 |

Text.
"""
CSV = "step,scans,CPU s,form\npredict,20,32.5,2D\npredict,10,99.1,3D\n"
CLAIMS = """
TABLE = "performance performance/times | predict & 2D | "
CLAIMS = {
    "docs/page.md": [
        ("took {} s for {} scans", TABLE + "CPU s", "performance/times.csv | scans | | form == '2D'"),
        ("{} in all", TABLE.replace("2D", "*D") + "scans | sum"),
        ("level of {},", "option: predict -unlike"),
    ]
}
"""
EXCEPTIONS = 'EXCEPTIONS = [("docs/page.md", r"\\b[23]D\\b", "dimensions")]\nFILES = {}\nNOT_YET = []\n'


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small repository whose numbers are right."""
    results = tmp_path / "docs" / "results"
    (results / "study" / "performance").mkdir(parents=True)
    for path in RESULTS.glob("*.py"):
        shutil.copy(path, results)
    for path, text in {
        tmp_path / "README.md": "# Title\n",
        tmp_path / "docs/page.md": PAGE,
        results / "study/performance/times.csv": CSV,
        results / "claims.py": CLAIMS,
        results / "exceptions.py": EXCEPTIONS,
    }.items():
        path.write_text(text, encoding="utf-8")
    with write_tables(tmp_path) as main:
        assert main() == 0
    return tmp_path


def change(path: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace a text of a file."""

    def changed(tree: Path) -> None:
        text = (tree / path).read_text(encoding="utf-8")
        assert old in text
        (tree / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return changed


STUDY = "docs/results/study"
TIMES = f"{STUDY}/performance/times.csv"
P, E = "docs/page.md", "docs/results/exceptions.py"
FAULTS = {
    "a file is removed": (lambda tree: (tree / TIMES).unlink(), "study/performance/times.csv: missing"),
    "a value is changed": (change(TIMES, "99.1", "99.2"), "study/performance/times.csv: changed"),
    "a file is new": (lambda tree: shutil.copy(tree / TIMES, tree / STUDY / "b.csv"), "b.csv: not in SHA256SUMS"),
    "a file is not read": (lambda tree: shutil.copy(tree / TIMES, tree / STUDY / "b.csv"), "b.csv: no table or claim"),
    "a number without source": (change(P, "Text.", "Text of 7 lines."), "page.md:19: 7 has no source"),
    "a number in a heading": (change(P, "# Times", "# 3 times"), "page.md:1: 3 has no source"),
    "a number in another table": (change(P, "Text.", "| a | 0.25 |"), "page.md:19: 0.25 has no source"),
    "a stale cell of a table": (change(P, "| 32.5 |", "| 32.6 |"), "page.md:7: '| predict | 20 | 32.6"),
    "a stale cell of a part": (change(P, "| 99.1 |\n\nText", "| 99 |\n\nText"), "page.md:17: '| predict"),
    "a row that is not there": (change(P, "| predict | 3D |", "| review | 3D |"), "has no row review, 3D"),
    "a column that is not there": (change(P, "| form | CPU s |\n|:", "| form | s |\n|:"), "no column s"),
    "a kind that is not there": (change(P, "table: performance", "table: times"), "no kind of table 'times'"),
    "a stale number": (change(P, "took 32.5 s", "took 32.4 s"), "page.md:10: 32.4 is 32.5"),
    "a number with too few digits": (change(P, "of 0.05,", "of 0,"), "0 has too few digits for 0.05"),
    "a stale constant": (change(P, "of 0.05,", "of 0.06,"), "page.md:11: 0.06 is 0.05"),
    "a claim without a text": (change(P, "in all", "together"), "stands 0 times"),
    "a claim of several values": (change("docs/results/claims.py", " | sum", ""), "2 values are not one"),
    "an unused exception": (change(E, "[23]D", "[3]D"), "nothing in docs/page.md uses"),
    "an unused pattern of files": (change(E, "{}", "{'c': ''}"), "the files 'c'"),
    "no page of a claim": (change("docs/results/claims.py", "docs/page", "docs/pages"), "no page docs/pages.md"),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_noticed(tree: Path, capsys, fault: Callable[[Path], object], said: str) -> None:
    fault(tree)
    before = {path: path.read_bytes() for path in tree.rglob("*.md")}
    capsys.readouterr()
    with write_tables(tree) as main:
        assert main("--check") == 1
    assert said in capsys.readouterr().out
    assert {path: path.read_bytes() for path in tree.rglob("*.md")} == before


def test_what_changed_is_written_anew(tree: Path) -> None:
    change(TIMES, "20,32.5", "21,1832.04")(tree)
    with write_tables(tree) as main:
        assert main("--check") == 1 and main() == 0
    page = (tree / "docs/page.md").read_text(encoding="utf-8")
    expected = PAGE.replace("| predict | 20 | 32.5 |", "| predict | 21 | 1832.04 |")
    assert page == expected.replace("took 32.5 s", "took 1832.0 s").replace("20 scans", "21 scans").replace(
        "30 in", "31 in"
    )
    with write_tables(tree) as main:
        assert main("--check") == 0


@pytest.fixture(scope="module")
def numbers() -> Iterator[object]:
    """docs/results/page_numbers.py."""
    import importlib

    with write_tables(ROOT):
        yield importlib.import_module("page_numbers")


@pytest.mark.parametrize(
    ("shown", "value", "expected"),
    [
        ("0.12", 0.345, "0.34"), (".120", 0.3456, ".346"), ("5,000", 12500.0, "12,500"), ("7", 7.6, "8"),
        ("+0.1", 0.25, "+0.2"), ("-.1", -0.36, "-.4"), ("1e-6", 2e-5, "2e-5"), ("0.5", -0.4, "-0.4"),
    ],
)  # fmt: skip
def test_a_number_is_written_as_it_stood(numbers, shown: str, value: float, expected: str) -> None:
    assert numbers.like(shown, value) == expected


def test_numerals_are_those_of_prose(numbers) -> None:
    page = (
        "# 1 title\n\nText 2,000 [3](4.md) `5` ![6](7.png) <!-- 8 --> .9 Task04 1e-3\n\n```\n10\n```\n\n    11\n\n12\n"
        "\n| 13 |\n\n<!-- table: kind folder -->\n\n| 14 |\n"
    )
    assert [numeral[0] for numeral in numbers.numerals(page)] == ["1", "2,000", "3", "6", ".9", "1e-3", "12", "13"]


def test_every_number_of_the_pages_is_that_of_its_source(capsys) -> None:
    with write_tables(ROOT) as main:
        assert main("--check") == 0, capsys.readouterr().out


def test_what_every_user_is_told_of_single_networks_is_no_result_of_a_study() -> None:
    from nnunet_nacl.calibration.learned_quality import SINGLE_NETWORKS

    assert "networks" in SINGLE_NETWORKS and not re.search(r"\d|EMIDEC", SINGLE_NETWORKS)
