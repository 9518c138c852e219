"""A small comparison as `nnunet_nacl compare` leaves it: comparison.json and one figure."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from nnunet_nacl.case.settings import EvaluationSettings
from nnunet_nacl.compare.comparison import Comparison
from nnunet_nacl.compare.entries import Entry
from nnunet_nacl.compare.page import comparison_to_json, make_page
from nnunet_nacl.files import to_json_text
from nnunet_nacl.show.layout import save_figure
from nnunet_nacl.show.tables import Table, frames
from tests.compare.synthetic import make_dataset

SCRIPT = "<script>document.title = 'hacked'</script>"
HOSTILE_CASE = "case \"1\" & 'two' <b>"
HOSTILE_LABEL = f'NACL "<i>" & co {"x" * 150}'
HOSTILE_NOTE = "left out: <img src=x onerror=\"document.title='hacked'\">"
DATASET = "Dataset999_Synthetic"
NAMES = ("nnUNetTrainer", "nnUNetTrainerCE", "nnUNetTrainerNACL")


@dataclass(frozen=True)
class Study:
    """Where it lies, and what comparison.json and its table say."""

    out: Path
    data: dict[str, Any]
    tables: list[Table]

    def write(self, **changes: Any) -> None:
        """Write comparison.json again, with some keys changed."""
        self.data.update(changes)
        (self.out / "comparison.json").write_text(json.dumps(self.data))

    def make_page(self) -> Path:
        """Write the page."""
        return make_page(self.data, self.tables, self.out)

    @property
    def page(self) -> str:
        """The page as text."""
        return (self.out / "report.html").read_text(encoding="utf-8")


def make_study(out: Path, *, hostile: bool = False) -> Study:
    """Three methods on eight cases, without any prediction.

    Args:
        out: Folder that is made.
        hostile: Names of a case, a structure and a method, and a note, would be HTML if they were not escaped.
    """
    labels = dict(zip(NAMES, ("Dice + CE (stock)", "CE", HOSTILE_LABEL if hostile else "NACL")))
    structures = {"1": SCRIPT if hostile else "anterior", "2": "posterior"}
    cases = [HOSTILE_CASE if hostile else "case_00", "case_01"]
    study = Study(out, *_comparison(labels, structures, cases, hostile))
    (out / "figures").mkdir(parents=True)
    for name, content in _figure().items():
        (out / "figures" / name).write_bytes(content)
    study.write()
    return study


def _comparison(
    labels: dict[str, str], structures: dict[str, str], cases: list[str], hostile: bool
) -> tuple[dict[str, Any], list[Table]]:
    """What `compare` makes of 8 cases, with one table and one figure."""
    made = make_dataset(dict(zip(NAMES, (1.0, 1.5, 2.5))), name=DATASET, notes=[HOSTILE_NOTE] * hostile)
    for records in made.records.values():
        records[0] = replace(records[0], case=cases[0])
    settings = EvaluationSettings(boundary_mm=3.0)
    dataset = replace(
        made, configuration="3d_fullres", structures=structures, cases=(cases[0], *made.cases[1:]), settings=settings
    )
    comparison = Comparison([Entry(name, label, name) for name, label in labels.items()], [dataset], n_bootstrap=1000)
    columns = ("Dice", "HD95_mm", "ECE:foreground", "ECE:all", "ECE:predicted")
    titles = {comparison.columns[column].title: column for column in columns}
    means = comparison.shown_means[DATASET]
    rows = [
        {"method": label} | {title: means[column][name] for title, column in titles.items()}
        for name, label in labels.items()
    ]
    rows[2][list(titles)[1]] = math.nan
    ends = (("[-0.02, 0.10]", -0.02, ""), ("[-0.10, 0.20]", -0.1, "worse"), ("[+0.10, +0.20]", 0.1, "better"))
    for row, (text, low, verdict) in zip(rows, ends):
        row |= {"95 % interval": (low, text), "verdict": verdict}
    table = Table("all", "All of it", "Means over cases.", *frames(rows), dict.fromkeys(titles, "lower"))
    figure = {"id": "one", "title": "A figure", "caption": "What it is.", "alt": "A line from 0 to 1.", "dataset": None}
    figure["files"] = ["figures/one.png", "figures/one.svg"]
    command = "nnunet_nacl compare -d 999 -c 3d_fullres -o 'my out'"
    data = comparison_to_json(comparison, [], [figure], command=command, settings={"allow_missing": False})
    return json.loads(to_json_text(data | {"created": "2025-01-02T03:04:05+00:00"})), [table]


@lru_cache(maxsize=1)
def _figure() -> dict[str, bytes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot((0, 1))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "svg"):
            save_figure(figure, Path(folder) / f"one.{suffix}")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
