"""The workflow without a training: its jobs, the names that it refuses, and its own scripts."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.processes import Ended, run_script, run_warm

WORKFLOW = Path(__file__).parents[2] / "workflow"
DATASET = "Dataset004_Some"
TRAINERS = ["nnUNetTrainerCE", "nnUNetTrainerLS", "nnUNetTrainerNACL"]
SMALL = {
    "datasets": [DATASET],
    "configurations": ["2d"],
    "folds": [0, 1],
    "trainers": TRAINERS,
    "device": "cpu",
}


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """Function that runs the workflow on SMALL with other entries; by default a dry run."""
    pytest.importorskip("snakemake", reason="needs nnunet_nacl[workflow], Python 3.11")
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
    (tmp_path / "raw" / DATASET).mkdir(parents=True)
    (tmp_path / "raw" / DATASET / "dataset.json").touch()

    def run(*arguments: str, dry: bool = True, **entries: object) -> Ended:
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps(SMALL | entries))  # JSON is YAML
        options = ["--snakefile", str(WORKFLOW / "Snakefile")]
        options += ["--directory", str(tmp_path), "--configfile", str(config)]
        options += ["--cores", "2", "--printshellcmds"]
        if dry:
            options.append("--dry-run")
        script = Path(sys.executable).with_name("snakemake")
        return run_warm(run_script, script, [*options, *arguments], folder=tmp_path)

    return run


def jobs(ended: Ended) -> dict[str, int]:
    """How many jobs of each rule a dry run lists."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = re.findall(r"^(\w+) +(\d+)$", ended.stdout + ended.stderr, re.MULTILINE)
    return {name: int(count) for name, count in counts if name not in ("all", "total")}


def validate(tmp_path: Path, trainer: str, fold: int, configuration: str = "2d") -> Path:
    """A fold that is trained and validated."""
    model = tmp_path / "results" / DATASET / f"{trainer}__nnUNetPlans__{configuration}"
    fold_folder = model / f"fold_{fold}"
    (fold_folder / "validation").mkdir(parents=True)
    (fold_folder / "validation" / "summary.json").touch()
    return fold_folder


def test_the_dry_run_lists_the_jobs_of_the_grid(snakemake) -> None:
    ended = snakemake(seeds=[1, 2], calibrated=True, keep="documents")
    models = 3 * 2  # trainers and seeds
    assert jobs(ended) == {
        "plan": 1,
        "preprocess": 1,
        "train": models * 2,
        "calibrate": models,
        "remove": models,
        "compare": 2,
    }
    trained = [f"{trainer}_seed2" for trainer in TRAINERS]
    calibrated = [f"{name}+calibrated" for name in trained]
    entries = " ".join(trained + calibrated)
    assert f"-tr {entries} -o results/comparison/2d/all_seed2 " in ended.stdout + ended.stderr


def test_test_cases_are_predicted_by_all_folds_and_calibrated(snakemake, tmp_path) -> None:
    ended = snakemake(cases="test", calibrated=True, trainers=TRAINERS[:1])
    once = ("plan", "preprocess", "calibrate", "predict", "calibrate_test", "compare")
    assert jobs(ended) == {"train": 2} | dict.fromkeys(once, 1)
    model = f"{tmp_path}/results/{DATASET}/{TRAINERS[0]}__nnUNetPlans__2d"
    folders = f"{TRAINERS[0]}={model}/test {TRAINERS[0]}+calibrated={model}/test_calibrated"
    command = f"compare -d {DATASET} -i {folders} -gt {tmp_path}/raw/{DATASET}/labelsTs"
    assert f"{command} -o results/comparison/2d/all/{DATASET} " in ended.stdout + ended.stderr


def validate_configuration(entries: dict) -> None:
    """Raise as the workflow does where its schema does not allow the entries."""
    reason = "needs nnunet_nacl[workflow], Python 3.11"
    utils = pytest.importorskip("snakemake.utils", reason=reason)
    utils.validate(entries, str(WORKFLOW / "schemas" / "config.schema.yaml"))


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
    validate_configuration(copy.deepcopy(SMALL))
    with pytest.raises(Exception, match=words):
        validate_configuration(SMALL | entries)


@pytest.mark.parametrize(
    "path", sorted((WORKFLOW / "config").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_configurations_that_come_along_are_valid(path) -> None:
    validate_configuration(yaml.safe_load(path.read_text()))


def test_large_files_go_once_all_is_measured(snakemake, tmp_path) -> None:
    kept = (
        "fold_0/checkpoint_final.pth",
        "fold_0/predicted_next_stage/a.npz",
        "fold_0/validation/records/a.npz",
    )
    removed = ("fold_0/checkpoint_best.pth", "fold_0/validation/a.npz", "test_calibrated/a.npz")
    model = validate(tmp_path, TRAINERS[0], 0).parent
    for name in (*kept, *removed):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).touch()
    target = f"results/removed/{DATASET}/2d/{TRAINERS[0]}.done"
    ended = snakemake(target, dry=False, folds=[0], keep="documents")
    assert ended.returncode == 0, ended
    assert [name for name in kept if not (model / name).exists()] == []
    assert [name for name in removed if (model / name).exists()] == []


ALONE = [sys.executable, str(WORKFLOW / "scripts" / "run_alone.py")]


def run(*command: object, **environment: str) -> subprocess.CompletedProcess:
    words = [str(word) for word in command]
    variables = os.environ | environment
    return subprocess.run(words, env=variables, capture_output=True, text=True, timeout=60)


def test_a_training_does_not_run_beside_an_earlier_try_of_itself(tmp_path) -> None:
    lock = tmp_path / "fold_0.lock"
    ended = run(*ALONE, lock, *ALONE, lock, "echo", "both")
    assert ended.returncode == 1
    assert f"{lock} is held" in ended.stderr
    assert not ended.stdout
    assert run(*ALONE, lock, "echo", "one").stdout == "one\n"


SHOW_GPU = ["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]


def gpu_of_last_job(tmp_path: Path, visible: str, num_jobs: int) -> subprocess.CompletedProcess:
    """Jobs that run at the same time, each of which sees the devices that are named ``visible``.

    Each job starts the next; the last one prints the GPU that it was given.
    """
    command: list[object] = []
    for number in range(num_jobs):
        lock = tmp_path / f"job_{number}"
        command += ["env", f"CUDA_VISIBLE_DEVICES={visible}", *ALONE, "--gpu", lock]
    return run(*command, *SHOW_GPU, TMPDIR=str(tmp_path))


def test_jobs_that_share_a_node_get_a_gpu_each(tmp_path) -> None:
    assert gpu_of_last_job(tmp_path, "2, 5", num_jobs=1).stdout == "2\n"
    assert gpu_of_last_job(tmp_path, "2, 5", num_jobs=2).stdout == "5\n"


def test_a_job_for_which_no_gpu_is_left_fails(tmp_path) -> None:
    ended = gpu_of_last_job(tmp_path, "2, 5", num_jobs=3)
    assert ended.returncode == 1
    assert "2, 5 are all taken" in ended.stderr


def test_jobs_to_which_the_scheduler_gave_one_gpu_keep_it(tmp_path) -> None:
    assert gpu_of_last_job(tmp_path, "3", num_jobs=2).stdout == "3\n"
