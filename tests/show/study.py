"""A small study as `nnunet_nacl compare` leaves it: models with predictions, images, and comparison.json."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_nacl.show.style import save_figure
from tests.cases.folders import CLASSES, Model, write_image, write_prediction

SCRIPT = "<script>document.title = 'hacked'</script>"
HOSTILE_CASE = "case \"1\" & 'two' <b>"
HOSTILE_LABEL = f'NACL "<i>" & co {"x" * 150}'
HOSTILE_NOTE = "left out: <img src=x onerror=\"document.title='hacked'\">"


@dataclass(frozen=True)
class Study:
    """Where it lies, and what comparison.json says."""

    out: Path
    models: dict[str, Model]
    data: dict[str, Any]

    def write(self, **changes: Any) -> None:
        """Write comparison.json again, with some keys changed."""
        self.data.update(changes)
        (self.out / "comparison.json").write_text(json.dumps(self.data))

    @property
    def page(self) -> str:
        """The page as text."""
        return (self.out / "report.html").read_text(encoding="utf-8")


def make_study(model: Model, *, labels: dict | None = None, hostile: bool = False) -> Study:
    """Add images and two more trainers to a validated model, and write the comparison of the three.

    Args:
        model: With at least one fold.
        labels: As in dataset.json.
        hostile: Rename a case, a method and a note so that they would be HTML if they were not escaped.
    """
    labels = labels or CLASSES
    rng = np.random.default_rng(1)
    folds = sorted(path.name.removeprefix("fold_") for path in model.folder.glob("fold_*"))
    cases = {case.name[:-4]: fold for fold in folds for case in sorted(model.validation(fold).glob("*.npz"))}
    images = model.root / "nnUNet_raw" / model.dataset / "imagesTr"
    images.mkdir(parents=True)
    models = {"nnUNetTrainer": model}
    for trainer in ("nnUNetTrainerCE", "nnUNetTrainerNACL"):
        models[trainer] = replace(model, trainer=trainer)
        shutil.copytree(model.folder, models[trainer].folder)
    for case, fold in cases.items():
        truth = sitk.ReadImage(str(model.references / f"{case}.nii.gz"))
        array, spacing = sitk.GetArrayFromImage(truth), truth.GetSpacing()[::-1]
        write_image(
            (array * 40 + rng.normal(0, 10, array.shape)).astype(np.float32), images / f"{case}_0000.nii.gz", spacing
        )
        for trainer in list(models)[1:]:
            validation = models[trainer].validation(fold)
            probs = np.load(validation / f"{case}.npz")["probabilities"]
            write_prediction(validation, case, *_other_prediction(rng, probs, labels), spacing)
    if hostile:
        cases = _rename(models, images, cases)
    out = model.root / "out"
    study = Study(out, models, _comparison(model, models, labels, cases, folds, rng, hostile))
    _draw(out / "figures")
    study.write()
    return study


def _other_prediction(rng, probs: np.ndarray, labels: dict) -> tuple[np.ndarray, np.ndarray]:
    noise = rng.uniform(size=probs.shape)
    if any(isinstance(value, list) for value in labels.values()):
        mixed = (0.6 * probs + 0.4 * noise).astype(np.float32)
        segmentation = np.where(mixed[1] > 0.5, 2, np.where(mixed[0] > 0.5, 1, 0)).astype(np.uint8)
    else:
        mixed = (0.6 * probs + 0.4 * noise / noise.sum(0)).astype(np.float32)
        segmentation = mixed.argmax(0).astype(np.uint8)
    return mixed, segmentation


def _rename(models: dict[str, Model], images: Path, cases: dict[str, str]) -> dict[str, str]:
    old = next(iter(cases))
    model = next(iter(models.values()))
    folders = [images, model.references, *(m.validation(cases[old]) for m in models.values())]
    for path in [path for folder in folders for path in folder.glob(f"{old}*")]:
        path.rename(path.with_name(path.name.replace(old, HOSTILE_CASE)))
    return {HOSTILE_CASE if case == old else case: fold for case, fold in cases.items()}


def _comparison(model, models, labels, cases, folds, rng, hostile: bool) -> dict[str, Any]:
    structures = {}
    for name, value in labels.items():
        if name not in ("background", "ignore"):
            structures[str(tuple(value)) if isinstance(value, list) else str(value)] = name
    columns = {
        "Dice": column("DSC", "higher", "Dice"),
        "HD95_mm": column("HD95 (mm)", "lower", "HD95_mm"),
        "ECE:foreground": column("ECE foreground", "lower", "ECE", "foreground"),
        "ECE:all": column("ECE all", "lower", "ECE", "all"),
        "ECE:predicted": column("ECE predicted", "lower", "ECE", "predicted"),
    }
    values = {c: {t: rng.uniform(0.1, 0.9, len(cases)).round(4).tolist() for t in models} for c in columns}
    means = {
        c: {
            t: {"mean": float(np.mean(v)), "low": float(np.mean(v)) - 0.1, "high": float(np.mean(v)) + 0.1, "n": len(v)}
            for t, v in by_trainer.items()
        }
        for c, by_trainer in values.items()
    }
    names = list(models)
    labels_shown = dict(zip(names, ("Dice + CE (stock)", "CE", HOSTILE_LABEL if hostile else "NACL")))
    rows = [
        [labels_shown[name], *(cell(means[c][name]["mean"], best=i == 1, second=i == 2) for c in columns)]
        for i, name in enumerate(names)
    ]
    rows[2][2] = {"text": "-", "value": None, "best": False, "second": False}
    for row, more in zip(rows, (("[-0.02, 0.10]", ""), ("[-0.10, 0.20]", "worse"), ("[+0.10, +0.20]", "better"))):
        row += more
    statistics = [
        {
            "dataset": model.dataset,
            "column": c,
            "family": "x",
            "trainer": t,
            "reference": names[0],
            "n": len(cases),
            "mean_reference": means[c][names[0]]["mean"],
            "mean": means[c][t]["mean"],
            "difference": means[c][t]["mean"] - means[c][names[0]]["mean"],
            "low": -0.2,
            "high": 0.2,
            "p": 0.2,
            "p_holm": 0.4,
            "verdict": "none",
        }
        for c in columns
        for t in names[1:]
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
        "trainers": [{"name": name, "label": labels_shown[name], "trainer": name, "ranked": True} for name in names],
        "datasets": [
            {
                "name": model.dataset,
                "configuration": model.configuration,
                "plans": model.plans,
                "folds": folds,
                "regions": any(isinstance(value, list) for value in labels.values()),
                "structures": structures,
                "cases": list(cases),
                "patients": {},
                "n_patients": len(cases),
                "case_fold": cases,
                "left_out": {},
                "predictions": {
                    t: {fold: {"folder": f"{m.dataset}/{m.folder.name}/fold_{fold}/validation"} for fold in folds}
                    for t, m in models.items()
                },
                "values": values,
                "means": means,
            }
        ],
        "columns": columns,
        "tables": [
            {
                "id": "all",
                "title": "All of it",
                "caption": "Means over cases.",
                "dataset": model.dataset,
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
    return {
        "title": title,
        "group": group,
        "better": better,
        "unit": "",
        "metric": metric,
        "mask": mask,
        "structure": None,
    }


def cell(value: float, *, best: bool = False, second: bool = False) -> dict[str, Any]:
    """A number of a table."""
    return {"text": f"{value:.3f}", "value": value, "best": best, "second": second}


def _draw(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in _figure().items():
        (folder / name).write_bytes(content)


@lru_cache(maxsize=1)
def _figure() -> dict[str, bytes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot((0, 1))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("png", "svg"):
            save_figure(figure, Path(folder) / f"one.{suffix}")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
