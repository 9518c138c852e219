"""Holds today's code against an earlier commit: the same networks, the same commands, the same numbers.

    python research/gate.py WORK -data DATA [-before COMMIT] [-only NAME ...] [--freeze] [--again]

WORK keeps networks, environments and frozen values; what is there is not done again. DATA holds the tasks
Task04_Hippocampus and Task28_EMIDEC. The commit before is checked out as a git worktree, installed in an environment of
its own and trains the networks; then both sides run the same commands on copies of them. `--again` runs today's side
anew. Exit status 1 if a number differs by more than its kind allows:

- segmentations: not at all;
- what is counted exactly (Dice, distances, calibration of all voxels): 1e-6;
- negative log likelihoods of left-out cases: 1e-4;
- what comes from samples or a fit: a tenth of the interval beside it, or a hundredth of the quantity's range.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK

ROOT = Path(__file__).resolve().parents[1]
TASKS = {"hippocampus": ("Task04_Hippocampus", 4, "12epochs"), "emidec": ("Task28_EMIDEC", 28, "16epochs")}
CONFIGURATION = "2d_small"
FOLDS = ["0", "1"]
N_SCANS = 12
EXACT, LIKELIHOOD = 1e-6, 1e-4
# Columns, by pattern, that follow from a sample or a fit, and the range of what they measure.
FITTED = {
    r"predicted|score|probability|confidence|entropy|mutual|unlike|limit|expected": 1.0,
    r"volume_(low|high)": None,
}


def run(environment: Path, folder: Path, *command: object, log: Path, check: bool = True) -> None:
    """Run a command of an environment with nnU-Net's folders in ``folder``; its output goes to ``log``."""
    variables = dict(os.environ, PATH=f"{environment / 'bin'}:{os.environ['PATH']}", OMP_NUM_THREADS="1")
    for kind in ("raw", "preprocessed", "results"):
        variables[f"nnUNet_{kind}"] = str(folder / f"nnUNet_{kind}")
    variables |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    words = [str(environment / "bin" / str(command[0])), *map(str, command[1:])]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as to:
        print("$", *words, file=to, flush=True)
        status = subprocess.run(words, env=variables, stdout=to, stderr=subprocess.STDOUT).returncode
    if status and check:
        sys.exit(f"{' '.join(words)} failed with status {status}; see {log}")


def make_environment(folder: Path, sources: Path) -> Path:
    """A virtual environment with the package of a checkout; one that is there is kept."""
    if not (folder / "bin" / "nnunet_nacl").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", "-e", f"{sources}[demo]"], check=True)
    return folder


def train(work: Path, data: Path, environment: Path, name: str) -> None:
    """Convert a task, plan it with a small configuration and train two folds; only what is missing."""
    task, number, epochs = TASKS[name]
    folder, log = work / name, work / "logs" / f"train_{name}.log"
    trainer = f"nnUNetTrainerDiceCE_{epochs}_50iters_adam"
    for kind in ("raw", "preprocessed", "results"):
        (folder / f"nnUNet_{kind}").mkdir(parents=True, exist_ok=True)
    if not (folder / "prepared").exists():
        run(environment, folder, "nnUNetv2_convert_MSD_dataset", "-i", data / task, log=log)
        run(environment, folder, "nnUNetv2_extract_fingerprint", "-d", number, log=log)
        run(environment, folder, "nnUNetv2_plan_experiment", "-d", number, log=log)
        preprocessed = next((folder / "nnUNet_preprocessed").glob("Dataset*"))
        shutil.copy(data / task / "splits_final.json", preprocessed)
        small = ROOT / "research/results/study_plans.py"
        run(environment, folder, "python", small, preprocessed, CONFIGURATION, log=log)
        run(environment, folder, "nnUNetv2_preprocess", "-d", number, "-c", CONFIGURATION, "-np", 1, log=log)
        (folder / "prepared").touch()
    for fold in FOLDS:
        if not list((folder / "nnUNet_results").glob(f"*/*/fold_{fold}/validation/summary.json")):
            options = ["-tr", trainer, "-device", "cpu", "--npz"]
            run(environment, folder, "nnUNetv2_train", number, CONFIGURATION, fold, *options, log=log)
    scans, labels = folder / "scans", folder / "labels"
    if not labels.exists():
        raw = next((folder / "nnUNet_raw").glob("Dataset*"))
        scans.mkdir()
        for case in json.loads((data / task / "outer_test.json").read_text())[:N_SCANS]:
            for path in raw.glob(f"imagesTr/{case}_0*"):
                shutil.copy(path, scans)
        labels.mkdir()
        for path in scans.iterdir():
            case = re.sub(r"_\d{4}(?=\.)", "", path.name)
            shutil.copy(raw / "labelsTr" / case, labels)


def train_brains(work: Path, environment: Path) -> None:
    """The virtual brains of the demo with their networks: a run of the demo of the commit before."""
    folder = work / "brains"
    if not (folder / "labels").exists():
        run(environment, folder, "nnunet_nacl", "demo", "-o", folder, log=work / "logs" / "train_brains.log")
        raw = next((folder / "nnUNet_raw").glob("Dataset*"))
        shutil.copytree(raw / "imagesTr", folder / "scans.new")
        shutil.copytree(raw / "labelsTr", folder / "labels.new")
        for path in sorted((folder / "scans.new").iterdir())[N_SCANS:]:
            path.unlink()
        known = {re.sub(r"_\d{4}(?=\.)", "", path.name) for path in (folder / "scans.new").iterdir()}
        for path in (folder / "labels.new").iterdir():
            if path.name not in known:
                path.unlink()
        os.replace(folder / "scans.new", folder / "scans")
        os.replace(folder / "labels.new", folder / "labels")


def run_commands(work: Path, name: str, environment: Path, side: Path) -> Path:
    """Run a user's commands on a copy of the networks; the folder with all that they wrote."""
    source, folder, log = work / name, side / name, side / f"{name}.log"
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    log.unlink(missing_ok=True)
    folder.mkdir(parents=True)
    for kind in ("raw", "preprocessed"):
        (folder / f"nnUNet_{kind}").symlink_to(source / f"nnUNet_{kind}")
    shutil.copytree(source / "nnUNet_results", folder / "nnUNet_results")
    # what the commands make anew
    for pattern in ("calibration*", "*/calibration*", "*/validation/calibration*", "*/validation/records"):
        for path in (folder / "nnUNet_results").glob(f"*/*/{pattern}"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    model = sorted((folder / "nnUNet_results").glob("*/*/fold_0"))[0].parent
    folds = sorted(path.name.removeprefix("fold_") for path in model.glob("fold_*"))
    trainer = model.name.split("__")[0]
    configuration = model.name.split("__")[2]
    network = ["-d", model.parent.name, "-c", configuration, "-f", *folds, "-tr", trainer]
    ours = ["nnunet_nacl"]
    cpu = ["-device", "cpu"]
    scans, labels, saved = source / "scans", source / "labels", source / "saved"
    if not (saved / "dataset.json").exists():  # nnU-Net's own predictions, the same for both sides
        run(environment, folder, "nnUNetv2_predict", "-i", scans, "-o", saved, *network, *cpu,
            "-npp", 1, "-nps", 1, "--save_probabilities", log=log)  # fmt: skip
    copied = folder / "saved"
    shutil.copytree(saved, copied)
    asked = subprocess.run([environment / "bin/nnunet_nacl", "evaluate", "-h"], capture_output=True, text=True)
    folders = ["-i", copied, "-gt", labels] if "-gt" in asked.stdout else [labels, copied]
    flags = ["-bad", "0.8", "-find", "0.6"]
    run(environment, folder, *ours, "calibrate", *network, *cpu, log=log)
    shutil.copy(model / "calibration_map.json", folder / "map_of_folds.json")
    shift = ["-form", "shift", "-o", folder / "map_shift.json"]
    run(environment, folder, *ours, "calibrate", *network, *cpu, *shift, log=log)
    run(environment, folder, *ours, "evaluate", *network, "-o", folder / "evaluated.json", "--csv", log=log)
    run(environment, folder, *ours, "predict", "-i", scans, "-o", folder / "predicted", *network, *cpu, *flags,
        "-npp", 1, "-nps", 1, "-maps", "-pages", "none", log=log, check=False)  # fmt: skip
    if not (folder / "predicted" / "review.csv").exists():  # too few bad scans for flags
        run(environment, folder, *ours, "predict", "-i", scans, "-o", folder / "predicted", *network, *cpu,
            "-npp", 1, "-nps", 1, "-maps", "-pages", "none", log=log)  # fmt: skip
    run(environment, folder, *ours, "review", "-i", copied, "-o", folder / "reviewed", "-map",
        folder / "map_of_folds.json", "-pages", "none", log=log)  # fmt: skip
    run(environment, folder, *ours, "evaluate", *folders, "-o", folder / "outer.json", "--csv", log=log)
    run(environment, folder, *ours, "evaluate", *folders, "-map", folder / "map_of_folds.json", "-o",
        folder / "outer_calibrated.json", "--csv", log=log)  # fmt: skip
    run(environment, folder, *ours, "calibrate", "-i", copied, "-gt", labels, "-o", folder / "map_saved.json", log=log)
    run(environment, folder, *ours, "calibrate", "-i", scans, "-gt", labels, *network, *cpu, "-o",
        folder / "map_own.json", log=log)  # fmt: skip
    run(environment, folder, *ours, "compare", *network, f"{trainer}+calibrated", "-o", folder / "compared",
        "--no_page", log=log)  # fmt: skip
    (folder / "done").touch()
    return folder


def values_of(folder: Path) -> Iterator[tuple[str, str, object, float | None]]:
    """Everything that is held: file, what it is, value, and the largest difference (None: equal)."""
    for path in sorted(folder.glob("predicted/*.nii.gz")):
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        yield "segmentations", path.name, hashlib.sha256(array.tobytes()).hexdigest(), None
    for path in sorted(folder.glob("map_*.json")):
        record = json.loads(path.read_text())
        record |= record.get("fitted", {})  # where the map of today keeps it
        yield path.name, "form", record["form"], None
        best = min(record["forms"], key=lambda row: row["nll"]) if record["forms"] else {}
        yield path.name, "form with the lowest NLL", [best.get("form"), best.get("ridge")], None
        for row in record["forms"]:
            yield path.name, f"forms {row['form']} {row.get('ridge')} nll", row["nll"], LIKELIHOOD
        yield path.name, "nll", record["nll"], LIKELIHOOD
        for name, change in record["effect"].items():
            for when in ("before", "after"):
                width = (change[when]["high"] or 0) - (change[when]["low"] or 0)  # null with one patient
                yield (
                    path.name,
                    f"effect {name} {when}",
                    change[when]["mean"],
                    (LIKELIHOOD if "NLL all" in name else max(EXACT, width / 10)),
                )
    for name in ("evaluated", "outer", "outer_calibrated"):
        frame = pd.read_csv(folder / f"{name}.csv", dtype={"value": float})
        keys = [column for column in frame.columns if column != "value"]
        for row in frame.itertuples(index=False):
            key = " ".join(str(getattr(row, column)) for column in keys if str(getattr(row, column)) != "nan")
            yield f"{name}.csv", key, row.value, 0.01 if name == "outer_calibrated" else EXACT
    for kind in ("predicted", "reviewed"):
        for file in ("structures.csv", "review.csv", "scans.csv", "findings.csv"):
            path = folder / kind / file
            if path.exists():
                yield from rows_of(f"{kind}/{file}", pd.read_csv(path))
        record = json.loads((folder / kind / "prediction.json").read_text())
        flags = record.get("flags") or {}
        for key in ("threshold", "limit", "score"):
            if isinstance(flags.get(key), float):
                yield f"{kind}/prediction.json", f"flags {key}", flags[key], 0.01
        yield f"{kind}/prediction.json", "n_to_look_at", record["n_to_look_at"], None
    compared = json.loads((folder / "compared" / "comparison.json").read_text())
    for place, value in flattened(compared):
        if isinstance(value, float) and "calibrat" not in place.split(".")[0]:
            yield "comparison.json", place, value, 0.01 if re.search("p_|interval|low|high", place) else 2e-3


def rows_of(file: str, frame: pd.DataFrame) -> Iterator[tuple[str, str, object, float | None]]:
    """Every cell of a list, by case, structure and column."""
    keys = [column for column in ("case", "structure", "finding", "part", "rank", "number") if column in frame]
    if "case" in frame and frame["case"].is_unique:
        keys = ["case"]
    count: dict[str, int] = {}
    for row in frame.to_dict("records"):
        key = " ".join(str(row[column]) for column in keys)
        count[key] = count.get(key, 0) + 1
        width = row.get("predicted_dice_high", np.nan) - row.get("predicted_dice_low", np.nan)
        volumes = [c for c in row if re.match("predicted_volume_(low|high)", c)]
        volume_width = abs(row[volumes[-1]] - row[volumes[0]]) if len(volumes) == 2 else np.nan
        for column, value in row.items():
            if column in keys or column == "reasons":
                continue
            tolerance: float | None = None
            if isinstance(value, float | int) and not isinstance(value, bool):
                tolerance = EXACT * max(1.0, abs(value))
                if re.search("volume", column) and "predicted" in column:
                    tolerance = max(tolerance, volume_width / 10 if np.isfinite(volume_width) else 0.01 * abs(value))
                elif any(re.search(pattern, column) for pattern in FITTED):
                    tolerance = max(width / 10, 1e-3) if np.isfinite(width) else 0.01
            yield file, f"{key} #{count[key]} {column}", value, tolerance


def flattened(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of a JSON value with its place."""
    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flattened(entry, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def compare(name: str, before: Path, now: Path) -> bool:
    """Print a line for each file: values held, values that are gone, the largest share of what is allowed."""
    old, new = ({(f, k): (v, t) for f, k, v, t in values_of(side)} for side in (before, now))
    good = True
    for file in sorted({f for f, _ in old}):
        held, gone, worst, faults = 0, [], 0.0, []
        for key, (value, tolerance) in old.items():
            if key[0] != file:
                continue
            if key not in new:
                gone.append(key[1])
                continue
            held += 1
            other = new[key][0]
            both_missing = value is None and other is None or value != value and other != other
            if tolerance is None or not isinstance(value, float | int) or not isinstance(other, float | int):
                if value != other and not both_missing:
                    faults.append(f"{key[1]}: {value} -> {other}")
            elif not both_missing:
                share = abs(value - other) / tolerance
                worst = max(worst, share if share == share else np.inf)
                if not share <= 1:
                    faults.append(f"{key[1]}: {value:.7g} -> {other:.7g}, allowed {tolerance:.2g}")
        columns = sorted({re.sub(r"^.*#\d+ ", "", key) for key in gone})
        counts = f"{held} held, worst {worst:.2g} of what is allowed, {len(faults)} differ, {len(gone)} gone"
        print(f"{name} {file}: {counts}")
        for fault in faults[:12]:
            print(f"    differs: {fault}")
        if columns:
            print(f"    gone: {', '.join(columns[:15])}{' ...' if len(columns) > 15 else ''}")
        good &= not faults
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("-data", type=Path, required=True)
    parser.add_argument("-before", default="c0cbf9c4")
    parser.add_argument("-only", nargs="+", choices=[*TASKS, "brains"], default=[*TASKS, "brains"])
    parser.add_argument("--again", action="store_true", help="run today's side anew")
    parser.add_argument("--freeze", action="store_true", help="train and run the earlier side alone")
    args = parser.parse_args()
    work, data = args.work.resolve(), args.data.resolve()
    sources = work / "sources_before"
    if not sources.exists():
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", sources, args.before], check=True)
    earlier = make_environment(work / "environment_before", sources)
    today = Path(sys.prefix)
    good = True
    for name in args.only:
        train_brains(work, earlier) if name == "brains" else train(work, data, earlier, name)
        before = run_commands(work, name, earlier, work / "before")
        if args.freeze:
            continue
        if args.again:
            (work / "now" / name / "done").unlink(missing_ok=True)
        good &= compare(name, before, run_commands(work, name, today, work / "now"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
