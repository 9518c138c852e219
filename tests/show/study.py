"""A small comparison as `nnunet_nacl compare` leaves it: comparison.json, one figure, and the pictures of two cases."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.show.drawing import Grid, draw_labels
from nnunet_nacl.show.gallery import Gallery, GalleryCase, Picture
from nnunet_nacl.show.layout import save_figure
from nnunet_nacl.show.page import data_uri, make_page

SCRIPT = "<script>document.title = 'hacked'</script>"
HOSTILE_CASE = "case \"1\" & 'two' <b>"
HOSTILE_LABEL = f'NACL "<i>" & co {"x" * 150}'
HOSTILE_NOTE = "left out: <img src=x onerror=\"document.title='hacked'\">"
DATASET = "Dataset999_Synthetic"
NAMES = ("nnUNetTrainer", "nnUNetTrainerCE", "nnUNetTrainerNACL")


@dataclass(frozen=True)
class Study:
    """Where it lies, what comparison.json says, and the pictures of its cases."""

    out: Path
    data: dict[str, Any]
    gallery: Gallery

    def write(self, **changes: Any) -> None:
        """Write comparison.json again, with some keys changed."""
        self.data.update(changes)
        (self.out / "comparison.json").write_text(json.dumps(self.data))

    def make_page(self, *, gallery: bool = True) -> Path:
        """Write the page."""
        return make_page(self.data, self.out, [self.gallery] * gallery)

    @property
    def page(self) -> str:
        """The page as text."""
        return (self.out / "report.html").read_text(encoding="utf-8")


def make_study(out: Path, *, hostile: bool = False) -> Study:
    """Three methods on two cases, without any prediction.

    Args:
        out: Folder that is made.
        hostile: Names of a case, a structure and a method, and a note, would be HTML if they were not escaped.
    """
    labels = dict(zip(NAMES, ("Dice + CE (stock)", "CE", HOSTILE_LABEL if hostile else "NACL")))
    structures = {"1": SCRIPT if hostile else "anterior", "2": "posterior"}
    cases = [HOSTILE_CASE if hostile else "case_00", "case_01"]
    study = Study(out, _comparison(labels, structures, cases, hostile), _gallery(labels, structures, cases))
    (out / "figures").mkdir(parents=True)
    for name, content in _figure().items():
        (out / "figures" / name).write_bytes(content)
    study.write()
    return study


def _gallery(labels: dict[str, str], structures: dict[str, str], cases: list[str]) -> Gallery:
    grid = Grid((14, 20), (1.0, 0.5))
    height, width = grid.pixels
    source = data_uri(draw_labels(None, [np.eye(14, 20, dtype=bool)], grid), ".png")

    def picture(title: str, case: str) -> Picture:
        return Picture(title, f"{title}, {case}: {structures['1']} 7 mm².", source, width, height)

    shown = []
    for case, reason in zip(cases, ("worst mean Dice", "highest ECE")):
        pictures = [("Ground truth", [picture("Ground truth", case)])]
        for label in labels.values():
            own = [picture(title, case) for title in ("Prediction", "Confidence")]
            pictures.append((f"{label}: Dice 0.800, ECE 0.020", own))
        shown.append(GalleryCase(case, [reason], "axial slice 3 of 6", False, pictures))
    return Gallery(DATASET, list(structures.values()), shown, [])


def _comparison(labels: dict[str, str], structures: dict[str, str], cases: list[str], hostile: bool) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    columns = {
        "Dice": column("DSC", "higher", "Dice"),
        "HD95_mm": column("HD95 (mm)", "lower", "HD95_mm"),
        "ECE:foreground": column("ECE foreground", "lower", "ECE", "foreground"),
        "ECE:all": column("ECE all", "lower", "ECE", "all"),
        "ECE:predicted": column("ECE predicted", "lower", "ECE", "predicted"),
    }
    means = {
        name: {
            method: {"mean": float(mean), "low": mean - 0.1, "high": mean + 0.1, "n": len(cases)}
            for method, mean in zip(labels, rng.uniform(0.1, 0.9, len(labels)))
        }
        for name in columns
    }
    rows = [
        [labels[name], *(cell(means[c][name]["mean"], best=i == 1, second=i == 2) for c in columns)]
        for i, name in enumerate(labels)
    ]
    rows[2][2] = {"text": "-", "value": None, "best": False, "second": False}
    ends = (("[-0.02, 0.10]", -0.02, ""), ("[-0.10, 0.20]", -0.1, "worse"), ("[+0.10, +0.20]", 0.1, "better"))
    for row, (text, low, verdict) in zip(rows, ends):
        row += [cell(low) | {"text": text}, verdict]
    statistics = [
        {
            "dataset": DATASET,
            "column": name,
            "trainer": method,
            "n": len(cases),
            "mean_reference": means[name][NAMES[0]]["mean"],
            "mean": means[name][method]["mean"],
            "difference": means[name][method]["mean"] - means[name][NAMES[0]]["mean"],
            "low": -0.2,
            "high": 0.2,
            "p_holm": 0.4,
            "verdict": "none",
        }
        for name in columns
        for method in NAMES[1:]
    ]
    return {
        "schema_version": 3,
        "generated_by": "nnunet_nacl 0.0",
        "created": "2025-01-02T03:04:05+00:00",
        "command": "nnunet_nacl compare -d 999 -c 3d_fullres -o 'my out'",
        "settings": {
            "n_bootstrap": 1000,
            "seed": 0,
            "confidence": 0.95,
            "allow_missing": False,
            "evaluation": {"n_bins": 15, "dilation_mm": 2.0, "boundary_mm": 3.0},
        },
        "notes": [HOSTILE_NOTE] if hostile else [],
        "trainers": [{"name": name, "label": label, "ranked": True} for name, label in labels.items()],
        "datasets": [
            {
                "name": DATASET,
                "configuration": "3d_fullres",
                "plans": "nnUNetPlans",
                "folds": ["0", "1"],
                "regions": False,
                "structures": structures,
                "cases": cases,
                "n_patients": len(cases),
                "left_out": {},
                "means": means,
            }
        ],
        "columns": columns,
        "tables": [
            {
                "id": "all",
                "title": "All of it",
                "caption": "Means over cases.",
                "dataset": DATASET,
                "columns": ["method", *(c["title"] for c in columns.values()), "95 % interval", "verdict"],
                "rows": rows,
                "files": ["tables/all.csv"],
            }
        ],
        "statistics": statistics,
        "figures": [
            {
                "id": "one",
                "title": "A figure",
                "caption": "What it is.",
                "alt": "A line from 0 to 1.",
                "dataset": None,
                "files": ["figures/one.png", "figures/one.svg"],
            }
        ],
    }


def column(title: str, better: str, metric: str, mask: str | None = None) -> dict[str, Any]:
    """An entry of `columns`."""
    group = "calibration" if mask else "discrimination"
    names = ("title", "group", "better", "unit", "metric", "mask", "structure")
    return dict(zip(names, (title, group, better, "", metric, mask, None)))


def cell(value: float, *, best: bool = False, second: bool = False) -> dict[str, Any]:
    """A number of a table."""
    return {"text": f"{value:.3f}", "value": value, "best": best, "second": second}


@lru_cache(maxsize=1)
def _figure() -> dict[str, bytes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot((0, 1))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "svg"):
            save_figure(figure, Path(folder) / f"one.{suffix}")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
