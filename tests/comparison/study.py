"""A small comparison as `nnunet_nacl compare` leaves it: comparison.json, one table and one
figure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_nacl.comparison.comparison_report import ComparisonReport, comparison_to_json
from nnunet_nacl.comparison.headline import Headline, make_headlines
from nnunet_nacl.comparison.methods import ComparedMethod
from nnunet_nacl.comparison.output_folder import PAGE_NAME
from nnunet_nacl.comparison.page import comparison_page
from nnunet_nacl.comparison.table import Table
from nnunet_nacl.settings import ComparisonSettings
from nnunet_nacl.utilities.tables import frames
from tests.comparison.synthetic import THREE, make_comparison

SCRIPT = "<script>document.title = 'hacked'</script>"
HOSTILE_LABEL = f'NACL "<i>" & co {"x" * 150}'
HOSTILE_NOTE = "left out: <img src=x onerror=\"document.title='hacked'\">"
DATASET = "Dataset999_Synthetic"


@dataclass(frozen=True)
class Study:
    """Where it lies, the content of comparison.json, and its table."""

    out: Path
    data: ComparisonReport
    headlines: list[Headline]
    tables: list[Table]

    def make_page(self) -> str:
        """The page as text, once it is written."""
        text = comparison_page(self.data, self.headlines, self.tables, self.out)
        (self.out / PAGE_NAME).write_text(text, encoding="utf-8", newline="")
        return text


def make_study(out: Path, *, hostile: bool = False) -> Study:
    """Three methods on eight cases, without any prediction.

    Args:
        out: Folder that is made.
        hostile: Names of a case, a structure and a method, and a note, would be HTML if they were
            not escaped.
    """
    options = ComparisonSettings(configuration="3d_fullres", n_bootstrap=1000)
    comparison = replace(make_comparison(THREE, name=DATASET), options=options)
    labels = ["Dice + CE (default)", "CE", "NACL"]
    if hostile:
        labels[2] = HOSTILE_LABEL
        for records in comparison.records.values():
            records[0] = replace(records[0], name="case \"1\" & 'two' <b>")
        structures = {"1": SCRIPT, "2": "posterior"}
        comparison = replace(comparison, structures=structures, notes=[HOSTILE_NOTE])
    comparison = replace(
        comparison,
        methods=[ComparedMethod(name, label, name) for name, label in zip(THREE, labels)],
    )
    columns = ("Dice", "HD95_mm", "ECE:foreground", "ECE:all", "ECE:predicted")
    titles = {column: comparison.columns[column].title for column in columns}
    means = comparison.means[list(columns)].rename(columns=titles, index=comparison.labels)
    rows = means.rename_axis("method").reset_index().to_dict("records")
    rows[2][titles["HD95_mm"]] = math.nan
    ends = (
        ("[-0.02, 0.10]", -0.02, ""),
        ("[-0.10, 0.20]", -0.1, "worse"),
        ("[+0.10, +0.20]", 0.1, "better"),
    )
    for row, (text, low, verdict) in zip(rows, ends):
        row |= {"95 % interval": (low, text), "verdict": verdict}
    table = Table(
        "statistics",
        "All of it",
        "Means over cases.",
        *frames(rows),
        dict.fromkeys(titles.values(), "lower"),
    )
    files = [f"figures/one.{ending}" for ending in ("png", "svg")]
    figure = {
        "id": "one",
        "title": "A figure",
        "caption": "What it is.",
        "alt": "A line.",
        "dataset": None,
    }
    (out / "figures").mkdir(parents=True)
    for name in files:
        (out / name).write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"></svg>'
        )
    command = "nnunet_nacl compare -d 999 -c 3d_fullres -o 'my out'"
    data = comparison_to_json([comparison], [], [figure | {"files": files}], {}, command=command)
    return Study(out, data, make_headlines([comparison]), [table])
