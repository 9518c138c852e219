"""The workflow without a training: its jobs, the names that it refuses, and its own scripts."""

from __future__ import annotations

import copy
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.processes import Ended, run_script, run_warm
from tests.trainers.plans import make_plans

WORKFLOW = Path(__file__).parents[2] / "workflow"
DATASET = "Dataset004_Some"
TRAINERS = ["nnUNetTrainerCE", "nnUNetTrainerLS", "nnUNetTrainerNACL"]
SMALL = {"datasets": [DATASET], "configurations": ["2d"], "folds": [0, 1], "trainers": TRAINERS, "device": "cpu"}


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """Function that runs the workflow on a configuration, which is YAML as JSON is; a dry run unless told otherwise."""
    pytest.importorskip("snakemake", reason="needs nnunet_nacl[workflow], Python 3.11")
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
    (tmp_path / "raw" / DATASET).mkdir(parents=True)
    (tmp_path / "raw" / DATASET / "dataset.json").touch()

    def run(*arguments: str, dry: bool = True, **entries: object) -> Ended:
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps(SMALL | entries))
        options = ["--snakefile", WORKFLOW / "Snakefile", "--directory", tmp_path, "--configfile", config]
        options += ["--cores", "2", "--printshellcmds", *(["--dry-run"] if dry else []), *arguments]
        return run_warm(
            run_script, Path(sys.executable).with_name("snakemake"), list(map(str, options)), folder=tmp_path
        )

    return run


def jobs(ended: Ended) -> dict[str, int]:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = re.findall(r"^(\w+) +(\d+)$", ended.stdout + ended.stderr, re.MULTILINE)
    return {name: int(count) for name, count in counts if name not in ("all", "total")}


def validate(tmp_path: Path, trainer: str, fold: int, configuration: str = "2d") -> Path:
    """A fold that is trained and validated."""
    fold_folder = tmp_path / "results" / DATASET / f"{trainer}__nnUNetPlans__{configuration}" / f"fold_{fold}"
    (fold_folder / "validation").mkdir(parents=True)
    (fold_folder / "validation" / "summary.json").touch()
    return fold_folder


def test_the_dry_run_lists_the_jobs_of_the_grid(snakemake) -> None:
    ended = snakemake(seeds=[1, 2], calibrated=True, keep="documents")
    expected = {"plan": 1, "preprocess": 1, "train": 3 * 2 * 2, "calibrate": 6, "remove": 6, "compare": 2}
    assert jobs(ended) == expected
    entries = " ".join(f"{t}_seed2{how}" for how in ("", "+calibrated") for t in TRAINERS)
    assert f"-tr {entries} -o results/comparison/2d/all_seed2 " in ended.stdout + ended.stderr


def test_test_cases_are_predicted_by_all_folds_and_calibrated(snakemake, tmp_path) -> None:
    ended = snakemake(cases="test", calibrated=True, trainers=TRAINERS[:1])
    once = ("plan", "preprocess", "calibrate", "predict", "calibrate_test", "compare")
    assert jobs(ended) == {"train": 2} | dict.fromkeys(once, 1)
    model = f"{tmp_path}/results/{DATASET}/{TRAINERS[0]}__nnUNetPlans__2d"
    folders = f"{TRAINERS[0]}={model}/test {TRAINERS[0]}+calibrated={model}/test_calibrated"
    command = f"compare -d {DATASET} -i {folders} -gt {tmp_path}/raw/{DATASET}/labelsTs"
    assert f"{command} -o results/comparison/2d/all/{DATASET} " in ended.stdout + ended.stderr


def test_what_is_trained_is_not_trained_again_and_a_cascade_needs_the_stage_before(snakemake, tmp_path) -> None:
    for fold in (0, 1):
        validate(tmp_path, TRAINERS[0], fold, "3d_lowres")
    asked = {"configurations": ["3d_cascade_fullres"], "trainers": TRAINERS[:2], "comparisons": {}}
    assert jobs(snakemake(**asked)) == {"plan": 1, "preprocess": 2, "train": 4 + 2}


def test_what_is_finished_is_compared_at_once(snakemake, tmp_path) -> None:
    for trainer in TRAINERS[:2]:
        for fold in (0, 1):
            validate(tmp_path, trainer, fold)
    validate(tmp_path, TRAINERS[2], 0)
    ended = snakemake("so_far")
    assert jobs(ended) == {"so_far": 1}
    text = ended.stdout + ended.stderr
    assert f"echo {DATASET}, 2d, all: 2 of 3 trainers are finished" in text
    assert f"-tr {TRAINERS[0]} {TRAINERS[1]} -o results/so_far/2d/all_{DATASET} " in text


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"datasets": ["Dataset004_a;b"]}, "Dataset004_a;b' is not valid"),
        ({"trainers": ["a b$(touch PWNED)"]}, "does not match"),
        ({"folds": [0, 0]}, "non-unique"),
        ({"trainers": ["nnUNetTrainer"], "seeds": [1]}, "'nnUNetTrainer' should not be valid"),
    ],
)
def test_the_schema_names_what_is_wrong(entries, words) -> None:
    utils = pytest.importorskip("snakemake.utils", reason="needs nnunet_nacl[workflow], Python 3.11")
    schema = str(WORKFLOW / "schemas" / "config.schema.yaml")
    utils.validate(copy.deepcopy(SMALL), schema)
    with pytest.raises(Exception, match=words):
        utils.validate(SMALL | entries, schema)


@pytest.mark.parametrize("path", sorted((WORKFLOW / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_valid(path) -> None:
    utils = pytest.importorskip("snakemake.utils", reason="needs nnunet_nacl[workflow], Python 3.11")
    utils.validate(yaml.safe_load(path.read_text()), str(WORKFLOW / "schemas" / "config.schema.yaml"))


def test_large_files_go_once_all_is_measured(snakemake, tmp_path) -> None:
    kept = ("fold_0/checkpoint_final.pth", "fold_0/predicted_next_stage/a.npz", "fold_0/validation/records/a.npz")
    removed = ("fold_0/checkpoint_best.pth", "fold_0/validation/a.npz", "test_calibrated/a.npz")
    model = validate(tmp_path, TRAINERS[0], 0).parent
    for name in (*kept, *removed):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).touch()
    target = f"results/removed/{DATASET}/2d/{TRAINERS[0]}.done"
    ended = snakemake(target, dry=False, folds=[0], keep="documents")
    assert ended.returncode == 0, ended
    assert all((model / name).exists() for name in kept) and not any((model / name).exists() for name in removed)


ALONE = [sys.executable, str(WORKFLOW / "scripts" / "run_alone.py")]


def run(*command: object, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **environment}
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=60)


def test_a_training_does_not_run_beside_an_earlier_try_of_itself(tmp_path) -> None:
    lock = tmp_path / "fold_0.lock"
    ended = run(*ALONE, lock, *ALONE, lock, "echo", "both")
    assert ended.returncode == 1 and f"{lock} is held" in ended.stderr and not ended.stdout
    assert run(*ALONE, lock, "echo", "one").stdout == "one\n"


def test_jobs_that_share_a_node_get_a_gpu_each(tmp_path) -> None:
    first, second, third = ([*ALONE, "--gpu", tmp_path / name] for name in "abc")
    again, shown = ["env", "CUDA_VISIBLE_DEVICES=2, 5"], ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]
    here = {"TMPDIR": str(tmp_path)}
    assert run(*again, *first, *shown, **here).stdout == "2\n"
    assert run(*again, *first, *again, *second, *shown, **here).stdout == "5\n"
    ended = run(*again, *first, *again, *second, *again, *third, *shown, **here)
    assert ended.returncode == 1 and "2, 5 are all taken" in ended.stderr
    chosen = ["env", "CUDA_VISIBLE_DEVICES=3"]  # by the scheduler
    assert run(*chosen, *first, *chosen, *second, *shown, **here).stdout == "3\n"


@pytest.mark.parametrize(("cases", "folds"), [(7, 5), (4, None)])
def test_folds_are_there_before_the_first_training(tmp_path, monkeypatch, cases: int, folds: int | None) -> None:
    """Two trainings that begin together would meet while one writes them; of few cases nnU-Net trains `all` only."""
    raw, folder = tmp_path / "raw" / DATASET, tmp_path / "preprocessed" / DATASET
    names = [f"case_{i}" for i in range(cases)]
    for path in (raw / "imagesTr", raw / "labelsTr", folder / "nnUNetPlans_2d"):
        path.mkdir(parents=True)
    for name in names:
        (raw / "imagesTr" / f"{name}_0000.nii.gz").touch()
        (raw / "labelsTr" / f"{name}.nii.gz").touch()
        (folder / "nnUNetPlans_2d" / f"{name}.pkl").touch()  # nothing is preprocessed again
    (raw / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "numTraining": cases}))
    plans = folder / "nnUNetPlans.json"
    plans.write_text(json.dumps(make_plans()))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    script = str(WORKFLOW / "scripts" / "preprocess.py")
    monkeypatch.setattr(sys, "argv", [script, str(plans), "2d"])
    runpy.run_path(script, run_name="__main__")
    splits = folder / "splits_final.json"
    made = json.loads(splits.read_text()) if splits.exists() else None
    assert (made and len(made)) == folds
    assert not made or sorted(case for fold in made for case in fold["val"]) == names
    monkeypatch.setattr(sys, "argv", [script, str(plans), "3d_lowres"])
    with pytest.raises(SystemExit, match="no configuration 3d_lowres; there are 2d"):
        runpy.run_path(script, run_name="__main__")
