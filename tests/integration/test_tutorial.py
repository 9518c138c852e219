"""The commands of docs/tutorial.md, from images to a reviewed list, with trainings of a moment."""

from __future__ import annotations

import csv
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

TASK = "Task04_Hippocampus"
SCHEDULE = "100epochs_50iters"
SHORT_SCHEDULE = "2epochs_10iters_adam_seed1"

FOLD = 10
"""Cases that each of two folds validates on: `-miss 0.05` takes 19 patients."""

NEW = 3
"""Scans to predict."""


COMPARED_COLUMNS = (
    "predicted_dice",
    "predicted_dice_low",
    "score",
    "predicted_volume_ml",
    "max_probability",
)


def make_task(folder: Path) -> None:
    """A few cases of NNUNET_NACL_TEST_DATA, or virtual brains, as a Decathlon task in two folds."""
    source = os.environ.get("NNUNET_NACL_TEST_DATA")
    if source:
        copy_cases(Path(source), folder)
    else:
        reason = "set NNUNET_NACL_TEST_DATA, or install nilearn (extra demo)"
        pytest.importorskip("nilearn", reason=reason)
        write_thin_virtual_brains(folder)
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir())
    first, second = cases[:FOLD], cases[FOLD:]
    splits = [{"train": first, "val": second}, {"train": second, "val": first}]
    tiny.write_json(folder / "splits_final.json", splits)


def copy_cases(source: Path, folder: Path) -> None:
    """The first labelled cases of a Decathlon task, of which the last become test cases."""
    names = sorted(path.name for path in (source / "labelsTr").glob("[!.]*.nii.gz"))
    training = names[: 2 * FOLD]
    test = names[2 * FOLD : 2 * FOLD + NEW]
    for kind in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / kind).mkdir(parents=True)
    for name in training:
        shutil.copy(source / "imagesTr" / name, folder / "imagesTr")
        shutil.copy(source / "labelsTr" / name, folder / "labelsTr")
    for name in test:
        shutil.copy(source / "imagesTr" / name, folder / "imagesTs")
    cases = {"training": training, "numTraining": 2 * FOLD, "test": test, "numTest": NEW}
    tiny.write_json(folder / "dataset.json", tiny.read_json(source / "dataset.json") | cases)


def write_thin_virtual_brains(folder: Path) -> None:
    """The demo's virtual brains, with a quarter of their slices."""
    folder.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virtual_brains, "NUM_TRAINING", FOLD)
        patch.setattr(virtual_brains, "NUM_VALIDATION", FOLD)
        patch.setattr(virtual_brains, "NUM_TEST", NEW)
        virtual_brains.write_virtual_brains(folder)
    for path in folder.glob("*s*/*.nii.gz"):
        nibabel.save(nibabel.load(path).slicer[:, :, 18:30], path)


def read_commands() -> list[str]:
    """Lines of the page as its reader types them."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    lines: list[str] = []
    for language, code in blocks(text):
        if language == "bash":
            lines += code.replace("\\\n", " ").splitlines()
    return lines


class Terminal:
    """Where the page's lines are typed: knows the variables that they export."""

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.variables = {"PWD": str(space.folder)}

    def type(self, line: str) -> str:
        """Run a line, with short trainings; what it prints."""
        for name, value in self.variables.items():
            line = re.sub(rf"\${name}\b", value, line)
        program, *words = shlex.split(line.replace(SCHEDULE, SHORT_SCHEDULE))
        if program == "source":
            sourced = self.space.folder / words[0]
            program, *words = shlex.split(sourced.read_text(encoding="utf-8"))
        if program == "export":
            self.variables.update(word.split("=", 1) for word in words)
            return ""
        if words[0] == "demo":
            return self.space.call_warm(demo, words, **self.variables)
        return self.space.run_warm(program, *words, **self.variables)


def demo(arguments: list[str]) -> int:
    """`nnunet_nacl demo` in this process; what it starts has nnU-Net loaded."""
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


def mark_every_scan_ok(output: Path, path: Path) -> None:
    """Write what the reader exports at the page."""
    run = tiny.read_json(output / "prediction.json")["run"]
    with open(path, "w", newline="") as file:
        marks = csv.writer(file)
        marks.writerow(["run", "case", "mark", "note", "time"])
        for row in read_rows(output / "review.csv"):
            marks.writerow([run, row["case"], "ok", "", "2026-01-01T00:00:00Z"])


def test_the_commands_of_the_tutorial_lead_to_a_reviewed_list(
    tmp_path, clean_environ, monkeypatch
) -> None:
    make_task(tmp_path / "data" / TASK)
    monkeypatch.chdir(tmp_path)
    terminal = Terminal(Workspace(tmp_path, clean_environ))
    printed_by = {}
    for line in read_commands():
        if "-marks" in line:
            mark_every_scan_ok(tmp_path / "out", tmp_path / "marks.csv")
        if not line.startswith("tar "):
            line = line.replace(f"--data {TASK}", f"--data data/{TASK}")
            printed_by[line.split()[1]] = terminal.type(line)

    (page,) = tmp_path.glob("tutorial/comparison/*/report.html")
    trainers = tiny.read_json(page.with_name("comparison.json"))["trainers"]
    assert [trainer["label"] for trainer in trainers] == ["as trained", "calibrated"]
    errors = r"pooled ECE [\d.]+ -> [\d.]+\. NLL [\d.]+ -> [\d.]+"
    assert re.search(errors, printed_by["calibrate"])
    assert "at most 5 % of all scans are bad and not flagged" in printed_by["predict"]
    assert (tmp_path / "out" / "index.html").is_file()
    assert (tmp_path / "out" / "outcome.html").is_file()

    scans = "tutorial/nnUNet_raw/Dataset004_Hippocampus/imagesTs"
    predict = "nnUNetv2_predict $MODEL -npp 0 -nps 0 --save_probabilities"
    terminal.type(f"{predict} -i {scans} -o stock")
    assert_same_segmentations(tmp_path / "stock", tmp_path / "out")

    (map_file,) = tmp_path.glob("tutorial/nnUNet_results/*/*/calibration_map.json")
    review = f"nnunet_nacl review -map {map_file} -bad 0.8 -miss 0.05 -also 5"
    terminal.type(f"{review} -i stock -o listed")
    assert_same_structures(tmp_path / "listed", tmp_path / "out")


def assert_same_segmentations(of_nnunet: Path, of_predict: Path) -> None:
    """nnU-Net's own command gives the same files as `nnunet_nacl predict`."""
    segmentations = sorted(of_nnunet.glob("*.nii.gz"))
    assert len(segmentations) == NEW
    for path in segmentations:
        assert path.read_bytes() == (of_predict / path.name).read_bytes()


def assert_same_structures(of_review: Path, of_predict: Path) -> None:
    """What nnU-Net's command saves is reviewed as `nnunet_nacl predict` reviews its scans."""
    rows = read_rows(of_review / "structures.csv")
    expected_rows = read_rows(of_predict / "structures.csv")
    for row, expected in zip(rows, expected_rows, strict=True):
        assert (row["case"], row["structure"]) == (expected["case"], expected["structure"])
        for column in COMPARED_COLUMNS:
            value = float(row[column] or "nan")
            expected_value = float(expected[column] or "nan")
            assert value == pytest.approx(expected_value, rel=1e-3, nan_ok=True)
