"""The commands of docs/tutorial.md, from images to a reviewed list: real scans, and two trainings
of a moment."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import nibabel
import pytest

from nnunet_nacl.demo import steps, virtual_brains
from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace
from tests.pages import ROOT, blocks

TASK, SCHEDULE, SHORT = "Task04_Hippocampus", "100epochs_50iters", "2epochs_10iters_adam_seed1"
# each of two folds validates on ten cases, and `-miss 0.05` takes 19 patients; scans to predict
FOLD, NEW = 10, 3


def make_task(folder: Path) -> None:
    """A few cases of NNUNET_NACL_TEST_DATA, or virtual brains, as a Decathlon task in two folds."""
    if source := os.environ.get("NNUNET_NACL_TEST_DATA"):
        names = sorted(path.name for path in Path(source, "labelsTr").glob("[!.]*.nii.gz"))[
            : 2 * FOLD + NEW
        ]
        for kind in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / kind).mkdir(parents=True)
        for name in names[: 2 * FOLD]:
            for kind in ("imagesTr", "labelsTr"):
                shutil.copy(Path(source, kind, name), folder / kind)
        for name in names[2 * FOLD :]:
            shutil.copy(Path(source, "imagesTr", name), folder / "imagesTs")
        entries = {
            "training": names[: 2 * FOLD],
            "numTraining": 2 * FOLD,
            "test": names[2 * FOLD :],
            "numTest": NEW,
        }
        tiny.write_json(
            folder / "dataset.json", tiny.read_json(Path(source, "dataset.json")) | entries
        )
    else:
        pytest.importorskip(
            "nilearn", reason="set NNUNET_NACL_TEST_DATA, or install nilearn (extra demo)"
        )
        folder.parent.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            for name, number in (
                ("NUM_TRAINING", FOLD),
                ("NUM_VALIDATION", FOLD),
                ("NUM_TEST", NEW),
            ):
                patch.setattr(virtual_brains, name, number)
            virtual_brains.write_virtual_brains(folder)
        for path in folder.glob("*s*/*.nii.gz"):
            nibabel.save(nibabel.load(path).slicer[:, :, 18:30], path)  # a quarter of the slices
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir())
    halves = cases[:FOLD], cases[FOLD:]
    splits = [{"train": train, "val": val} for train, val in (halves, halves[::-1])]
    (folder / "splits_final.json").write_text(json.dumps(splits))


def commands() -> list[str]:
    """Lines of the page as its reader types them."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return [
        line for language, code in blocks(text) if language == "bash" for line in code.splitlines()
    ]


def demo(arguments: list[str]) -> int:
    """`nnunet_nacl demo` in this process, whose commands run in processes that have nnU-Net
    loaded."""
    from nnunet_nacl.cli.main import main

    here = Workspace(Path.cwd(), dict(os.environ))

    def run(commands, environment, while_waiting=None) -> None:
        for command in commands:
            command.log.parent.mkdir(parents=True, exist_ok=True)
            printed = here.run_warm(*command.words, **environment)
            command.log.write_text(printed, encoding="utf-8")

    steps.run_together = run
    return main(arguments)


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mark(output: Path, path: Path) -> None:
    """What the reader does at the page: every scan is ok."""
    run = tiny.read_json(output / "prediction.json")["run"]
    with open(path, "w", newline="") as file:
        marks = [
            [run, row["case"], "ok", "", "2026-01-01T00:00:00Z"]
            for row in read_rows(output / "review.csv")
        ]
        csv.writer(file).writerows([["run", "case", "mark", "note", "time"], *marks])


def test_the_commands_of_the_tutorial_lead_to_a_reviewed_list(
    tmp_path, clean_environ, monkeypatch
) -> None:
    make_task(tmp_path / "data" / TASK)
    monkeypatch.chdir(tmp_path)
    space, environ, printed = Workspace(tmp_path, clean_environ), {"PWD": str(tmp_path)}, {}

    def run(line: str) -> str:
        for name, value in environ.items():
            line = re.sub(rf"\${name}\b", value, line)
        program, *words = shlex.split(line.replace(SCHEDULE, SHORT))
        if program == "source":
            program, *words = shlex.split((tmp_path / words[0]).read_text(encoding="utf-8"))
        if program == "export":
            environ.update(word.split("=", 1) for word in words)
            return ""
        if words[0] == "demo":
            return space.call_warm(demo, words, **environ)
        return space.run_warm(program, *words, **environ)

    for line in commands():
        if "-marks" in line:
            mark(tmp_path / "out", tmp_path / "marks.csv")
        if not line.startswith("tar "):
            printed[line.split()[1]] = run(line.replace(f"--data {TASK}", f"--data data/{TASK}"))

    (page,) = tmp_path.glob("tutorial/comparison/*/report.html")
    entries = tiny.read_json(page.with_name("comparison.json"))["trainers"]
    assert [entry["label"] for entry in entries] == ["as trained", "calibrated"]
    assert re.search(r"pooled ECE [\d.]+ -> [\d.]+\. NLL [\d.]+ -> [\d.]+", printed["calibrate"])
    assert "at most 5 % of all scans are bad and not flagged" in printed["predict"]
    assert (tmp_path / "out" / "index.html").is_file() and (
        tmp_path / "out" / "outcome.html"
    ).is_file()

    # nnU-Net's own command gives the same segmentations, and what it saves is reviewed as the scans
    # were.
    scans = "tutorial/nnUNet_raw/Dataset004_Hippocampus/imagesTs"
    run(f"nnUNetv2_predict -i {scans} -o stock $MODEL -npp 0 -nps 0 --save_probabilities")
    segmentations = sorted((tmp_path / "stock").glob("*.nii.gz"))
    assert len(segmentations) == NEW
    for path in segmentations:
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    (map_file,) = tmp_path.glob("tutorial/nnUNet_results/*/*/calibration_map.json")
    run(f"nnunet_nacl review -i stock -o listed -map {map_file} -bad 0.8 -miss 0.05 -also 5")
    listed, out = (read_rows(tmp_path / folder / "structures.csv") for folder in ("listed", "out"))
    for row, expected in zip(listed, out, strict=True):
        assert (row["case"], row["structure"]) == (expected["case"], expected["structure"])
        for column in (
            "predicted_dice",
            "predicted_dice_low",
            "score",
            "predicted_volume_ml",
            "max_probability",
        ):
            values = [float(cells[column] or "nan") for cells in (row, expected)]
            assert values[0] == pytest.approx(values[1], rel=1e-3, nan_ok=True)
