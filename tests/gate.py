"""The gate of a refactoring: do the commands still write the same documents, over a fixed corpus?

    python tests/gate.py make CORPUS                    # once; the same at every making
    python tests/gate.py run OUT [--corpus CORPUS] [--only evaluate,calibrate]
    python tests/gate.py compare BEFORE AFTER [--tolerance 1e-6]

``run`` carries out every operation of :data:`OPERATIONS` in this process on a copy of the corpus, and stores what each
printed and every file that it wrote: label maps and probabilities as arrays, documents as text in which paths, versions
and dates have fixed names. An operation is described by what it does, and has one command line for each generation of
the command line, so that `review` can be compared with the `apply`, `decide` and `uncertainty` that it replaced: by
segmentations, probabilities, maps and list, wherever they lie.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fnmatch
import hashlib
import io
import json
import math
import os
import pickle
import re
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

# Where something may differ: operation, file and field as patterns, and why. Found differences there are counted only.
EXCEPTIONS: tuple[tuple[str, str, str, str], ...] = (
    ("*", "*", "*signature*", "what a resumed run recognises a file by is internal"),
    ("*", "*", "*mtime_ns", "dates of files"),
    ("*", "*", "*largest_logit*", "new: a case's largest logit stands in its row"),
    ("*", "*calibration_map.json", "groups", "new: the patients stand in the map"),
    ("*_shift", "*calibration_map.json", "forms.*.standard_error", "one-standard-error rule: by patients, not cases"),
    ("export_portable", "*calibration_map.json", "forms.*.standard_error", "the same map in an archive"),
    ("*", "stderr.txt", "*", "progress and warnings are for eyes; problems are in the documents, too"),
)


# ---------------------------------------------------------------------------------------------------------- operations


@dataclass(frozen=True)
class Operation:
    """Something that a user wants done.

    Attributes:
        name: Its own; ``--only`` takes the beginnings of names.
        before: Command lines of the old generation: ``{model}``, ``{P0}`` and so on are filled in.
        after: Of the new one, where it differs.
        needs: Names of the operations whose results it reads.
        datasets: Of which data sets.
        review: Folder of segmentations, maps and list, by which the generations are compared.
    """

    name: str
    before: str
    after: str | None = None
    needs: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ("Classes", "Regions", "Ignore", "Slices", "Cascade")
    review: str | None = None


MODEL = "-d {dataset} -c {configuration} -tr"
MAP = "{out}/map.json"
OPERATIONS = (
    Operation("evaluate", f"evaluate {MODEL} nnUNetTrainer -np 1 --csv"),
    Operation("evaluate_again", f"evaluate {MODEL} nnUNetTrainer -np 1 --csv", needs=("evaluate",)),
    Operation(
        "evaluate_bins",
        f"evaluate {MODEL} nnUNetTrainerNACL -f 1 -np 1 --csv -bins 10 -o {{out}}/bins.json",
        datasets=("Classes", "Ignore"),
    ),
    Operation("evaluate_folder", "evaluate {labels} {P0} -np 1 --csv -threshold 0.7 -o {out}/folder.json"),
    Operation(
        "evaluate_radius",
        "evaluate {labels} {P1} -np 1 -dilated 3 -boundary 1 -o {out}/radius.json",
        datasets=("Classes", "Regions"),
    ),
    Operation("calibrate", f"calibrate {MODEL} nnUNetTrainer -np 1", needs=("evaluate",)),
    Operation("calibrate_shift", f"calibrate {MODEL} nnUNetTrainerNACL -form shift -groups ^(patient[0-9]+) -np 1"),
    Operation(
        "calibrate_folder",
        f"calibrate -i {{P1}} -gt {{labels}} -form conditional -o {MAP} -np 1",
        datasets=("Classes", "Regions", "Slices"),
    ),
    Operation(
        "predicted_validation",
        f"evaluate {MODEL} nnUNetTrainerCE --predict -device cpu -np 1",
        datasets=("Classes", "Regions", "Slices", "Cascade"),
    ),
    Operation(
        "calibrate_samples",
        f"calibrate {MODEL} nnUNetTrainerCE -form temperature --write_checkpoints -np 1",
        needs=("predicted_validation",),
        datasets=("Classes", "Regions"),
    ),
    Operation(
        "predicted_calibrated",
        f"evaluate {MODEL} nnUNetTrainerCE --predict -device cpu -chk checkpoint_calibrated.pth -np 1",
        needs=("calibrate_samples",),
        datasets=("Classes", "Regions"),
    ),
    Operation(
        "apply",
        "apply -i {P0} -map {map} -o {out}/applied -np 1",
        "review -i {P0} -map {map} -o {out}/applied --save_probabilities -np 1",
        needs=("calibrate",),
        review="applied",
    ),
    Operation(
        "evaluate_applied",
        "evaluate {labels} {out}/applied -np 1 -map {map} -o {out}/applied.json",
        needs=("apply",),
        datasets=("Classes", "Regions"),
    ),
    Operation(
        "decide",
        "decide -i {P1} -o {out}/decided --probabilities -np 1",
        "review -i {P1} -o {out}/decided -decide dice --save_probabilities -np 1",
        review="decided",
    ),
    Operation(
        "decide_calibrated",
        "decide -i {out}/applied -o {out}/decided_applied -np 1",
        "review -i {P0} -map {map} -o {out}/decided_applied -decide dice -np 1",
        needs=("apply",),
        datasets=("Classes", "Regions"),
        review="decided_applied",
    ),
    Operation(
        "uncertainty",
        "uncertainty -i {P0} -o {out}/uncertain -np 1",
        "review -i {P0} -o {out}/uncertain -maps -np 1",
        review="uncertain",
    ),
    Operation(
        "uncertainty_members",
        "uncertainty -i {P0} {P1} {P2} -o {out}/members "
        "-maps confidence entropy margin mutual_information expected_entropy -np 1",
        "review -i {P0} {P1} {P2} -o {out}/members "
        "-maps confidence entropy margin mutual_information expected_entropy -np 1",
        datasets=("Classes", "Regions", "Slices"),
        review="members",
    ),
    Operation(
        "uncertainty_map",
        "uncertainty -i {out}/applied -map {map} -threshold 0.8 -o {out}/mapped -np 1",
        "review -i {P0} -map {map} -threshold 0.8 -o {out}/mapped -maps -np 1",
        needs=("apply",),
        datasets=("Classes", "Regions"),
        review="mapped",
    ),
    Operation(
        "compare",
        f"compare {MODEL} nnUNetTrainer nnUNetTrainerNACL -bootstrap 200 -np 1 -o {{out}}/compare",
        f"compare {MODEL} nnUNetTrainer nnUNetTrainerNACL -bootstrap 200 -np 1 -o {{out}}/compare --no_page",
        needs=("evaluate",),
        datasets=("Regions", "Slices"),
    ),
    Operation(
        "compare_treated",
        f"compare {MODEL} nnUNetTrainer nnUNetTrainerNACL nnUNetTrainer+calibrated nnUNetTrainer+decided "
        "nnUNetTrainer+calibrated+decided -bootstrap 200 -np 1 -o {out}/treated",
        f"compare {MODEL} nnUNetTrainer nnUNetTrainerNACL nnUNetTrainer+calibrated nnUNetTrainer+decided "
        "nnUNetTrainer+calibrated+decided -bootstrap 200 -np 1 -o {out}/treated --no_page",
        needs=("evaluate", "calibrate"),
        datasets=("Classes",),
    ),
    Operation(
        "compare_samples",
        f"compare {MODEL} nnUNetTrainer nnUNetTrainerCE nnUNetTrainerCE+calibrated -bootstrap 200 -np 1 "
        "-o {out}/sampled",
        f"compare {MODEL} nnUNetTrainer nnUNetTrainerCE nnUNetTrainerCE+calibrated -bootstrap 200 -np 1 "
        "-o {out}/sampled --no_page",
        needs=("evaluate", "predicted_calibrated"),
        datasets=("Classes",),
    ),
    Operation(
        "compare_folders",
        "compare -i First={P0} Second={P1} Applied={out}/applied -gt {labels} -bootstrap 200 -np 1 -o {out}/folders",
        "compare -i First={P0} Second={P1} Applied={out}/applied -gt {labels} -bootstrap 200 -np 1 -o {out}/folders "
        "--no_page",
        needs=("apply",),
        datasets=("Classes",),
    ),
    Operation(
        "page",
        "report -o {out}/compare",
        f"compare {MODEL} nnUNetTrainer nnUNetTrainerNACL -bootstrap 200 -np 1 -o {{out}}/compare",
        needs=("compare",),
        datasets=("Regions", "Slices"),
    ),
    Operation(
        "page_treated",
        "report -o {out}/treated",
        f"compare {MODEL} nnUNetTrainer nnUNetTrainerNACL nnUNetTrainer+calibrated nnUNetTrainer+decided "
        "nnUNetTrainer+calibrated+decided -bootstrap 200 -np 1 -o {out}/treated",
        needs=("compare_treated",),
        datasets=("Classes",),
    ),
    Operation(
        "predict",
        "predict -i {scans} -o {out}/predicted -m {model} -f 0 -chk checkpoint_final.pth "
        "-maps {previous} -device cpu -npp 0 -nps 0",
    ),
    Operation(
        "predict_folds",
        "predict -i {scans} -o {out}/averaged -m {model} -f 0 1 -chk checkpoint_final.pth -decide dice -maps "
        "{previous} -device cpu -npp 0 -nps 0",
        datasets=("Classes", "Regions"),
    ),
    Operation(
        "predict_calibrated",
        "predict -i {scans} -o {out}/calibrated -m {model} -threshold 0.8 {previous} -device cpu -npp 0 -nps 0",
        needs=("calibrate",),
        datasets=("Classes", "Regions", "Cascade"),
    ),
    Operation(
        "export",
        f"export {MODEL} nnUNetTrainer -o {{out}}/model.zip",
        needs=("evaluate", "calibrate"),
        datasets=("Classes",),
    ),
    Operation(
        "export_portable",
        f"export {MODEL} nnUNetTrainerNACL -o {{out}}/portable.zip --portable",
        needs=("calibrate_shift",),
        datasets=("Classes", "Cascade"),
    ),
)


def wanted(dataset: str, only: Sequence[str], skip: Sequence[str] = ()) -> list[Operation]:
    """Operations on a data set whose names begin with one of ``only`` and none of ``skip``, and what they need."""
    here = {operation.name: operation for operation in OPERATIONS if dataset in operation.datasets}
    names: set[str] = set()

    def add(name: str) -> None:
        names.add(name)
        for needed in here[name].needs:
            add(needed)

    for name in here:
        if (not only or name.startswith(tuple(only))) and not name.startswith(tuple(skip)):
            add(name)
    return [operation for name, operation in here.items() if name in names]


# ----------------------------------------------------------------------------------------------------------------- run


def run(
    output: Path, corpus: Path | None, only: Sequence[str], skip: Sequence[str], datasets: Sequence[str], keep: bool
) -> None:
    """Carry out the operations and store what they left, under ``output``."""
    output = output.resolve()
    root = Path(tempfile.mkdtemp(prefix="gate_"))
    os.environ |= {name: str(root / name) for name in NNUNET_FOLDERS}
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "nnUNet_def_n_proc": "1"}
    os.environ |= {"COLUMNS": "120"}
    _one_thread()
    if output.exists():
        if not (output / "gate.json").is_file():
            sys.exit(f"{output} is there, and no earlier run of the gate made it; give another folder.")
        shutil.rmtree(output)
    output.mkdir(parents=True)
    try:
        if corpus is None:
            from tests.gate_corpus import make_corpus

            make_corpus(root)
        else:
            shutil.copytree(corpus, root, dirs_exist_ok=True)  # dates are kept, by which checkpoints are older
        (output / "gate.json").write_text(json.dumps({"all": not (only or skip or datasets)}))
        for folder in sorted((root / "nnUNet_results").iterdir()):
            name = folder.name.split("_", 1)[1]
            if not datasets or name in datasets:
                for operation in wanted(name, only, skip):
                    _carry_out(operation, root, folder.name, output / name / operation.name)
    finally:
        if keep:
            print(f"kept: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)


def _one_thread() -> None:
    """The last bits of a network's output depend on the number of threads."""
    import multiprocessing

    import torch

    multiprocessing.cpu_count = lambda: 1
    torch.set_num_threads(1)


def _carry_out(operation: Operation, root: Path, dataset: str, store: Path) -> None:
    argv = _command_line(operation, root, dataset)
    watched = [root / "out" / dataset, root / "nnUNet_results" / dataset, root / "predictions" / dataset]
    watched[0].mkdir(parents=True, exist_ok=True)
    before, start = _hashes(root, watched), time.perf_counter()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = _main(argv)
    seconds = time.perf_counter() - start
    after = _hashes(root, watched)
    print(f"{dataset} {operation.name}: status {status}, {seconds:.1f} s", flush=True)
    if status not in (0, 1):
        print("".join(f"    {line}\n" for line in _without_bars(err.getvalue()).splitlines()[-6:]), end="", flush=True)
    store.mkdir(parents=True)
    (store / "operation.json").write_text(json.dumps({"command": argv[0], "status": status, "seconds": seconds}))
    (store / "stdout.txt").write_text(normalised(out.getvalue(), root))
    (store / "stderr.txt").write_text(normalised(_without_bars(err.getvalue()), root))
    changed = sorted(path for path in after if after[path] != before.get(path))
    (store / "written.json").write_text(json.dumps(changed, indent=0))
    for path in changed:
        _store(root / path, store / "files" / path, root)
    for path in sorted(set(before) - set(after)):
        (store / "removed.txt").open("a").write(f"{path}\n")
    if operation.review:
        _store_review(root / "out" / dataset / operation.review, store / "review")


def _command_line(operation: Operation, root: Path, dataset: str) -> list[str]:
    from nnunet_nacl.cli.main import SUBCOMMANDS, build_parser

    text = operation.before
    if operation.after is not None:
        old = operation.before.split()[0] in SUBCOMMANDS and not (
            "--no_page" in operation.after and "report" not in SUBCOMMANDS
        )
        text = text if old else operation.after
    (model,) = (fold.parent for fold in (root / "nnUNet_results" / dataset).glob("nnUNetTrainer__*/fold_0"))
    configuration = model.name.split("__")[2]
    predictions = root / "predictions" / dataset
    places = {
        "dataset": dataset,
        "configuration": configuration,
        "model": model,
        "map": model / "calibration_map.json",
        "labels": predictions / "labels",
        "scans": root / "nnUNet_raw" / dataset / "imagesTs",
        "out": root / "out" / dataset,
        "previous": f"-prev_stage_predictions {predictions / 'member0'}" if "cascade" in configuration else "",
        **{f"P{i}": predictions / f"member{i}" for i in range(3)},
    }
    argv = text.format(**places).split()
    parser = build_parser(argv[:1])
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    options = set(subparsers.choices[argv[0]]._option_string_actions)
    return [argv[0], *(_spelling(word, options) for word in argv[1:])]


def _spelling(word: str, options: set[str]) -> str:
    """A flag as this generation spells it: with hyphens or underscores, one dash or two."""
    if not word.startswith("-") or word in options:
        return word
    name = word.lstrip("-")
    spellings = (f"{dashes}{n}" for dashes in ("--", "-") for n in (name.replace("_", "-"), name.replace("-", "_")))
    return next((spelling for spelling in spellings if spelling in options), word)


def _main(argv: list[str]) -> int | str:
    from nnunet_nacl.cli.main import main

    try:
        return main(argv)
    except SystemExit as error:
        return f"exit {error.code}"
    except Exception:
        traceback.print_exc()
        return "traceback"


def _without_bars(text: str) -> str:
    """What was printed to stderr, but for progress bars."""
    lines = (line for line in re.split(r"[\r\n]", text) if line.strip())
    return "".join(f"{line.rstrip()}\n" for line in lines if not re.search(r"\d%\||\[\d\d:\d\d", line))


def _hashes(root: Path, folders: Sequence[Path]) -> dict[str, str]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --------------------------------------------------------------------------------------------------------------- store

_PATTERNS = (
    (r"nnunet_nacl \d[\w.+!-]*", "nnunet_nacl VERSION"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(\+00:00|Z| UTC)?", "DATE"),
    (r"\b\d{4}-\d\d-\d\d\b", "DAY"),
    (r"(?<![\d.])1[5-9]\d{17}(?![\d.])", "0"),  # a date in nanoseconds
    (r"\b\d+(\.\d+)? seconds\b", "SECONDS"),
    (r"\bin \d+(\.\d+)? s\b", "in SECONDS"),
    (r"\(\d+\.\d MB\)", "(SIZE)"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),  # of files that are compared themselves
    (r"/tmp/tmp\w+", "TEMPORARY"),
)


def normalised(text: str, root: Path) -> str:
    """The text with fixed names for the workspace, versions and dates."""
    for path in {str(root.resolve()), str(root)} if root.is_absolute() else ():
        text = text.replace(path, "ROOT")
    for pattern, name in _PATTERNS:
        text = re.sub(pattern, name, text)
    return text


def _store(path: Path, target: Path, root: Path) -> None:
    """One file in a form that can be compared."""
    target.parent.mkdir(parents=True, exist_ok=True)
    name = path.name
    try:
        if name.endswith((".json", ".csv", ".md", ".tex", ".txt")):
            target.write_text(normalised(path.read_text(encoding="utf-8"), root))
        elif name.endswith(".html"):
            target.with_name(f"{name}.txt").write_text(_visible(normalised(path.read_text(encoding="utf-8"), root)))
        elif name.endswith(".svg"):
            target.with_name(f"{name}.txt").write_text("a drawing\n")  # the png beside it is the same
        elif name.endswith((".nii.gz", ".png", ".tif")):
            _store_arrays(target, _image(path))
        elif name.endswith((".npz", ".sample")):
            with np.load(path, allow_pickle=False) as content:
                _store_arrays(target, {key: _readable(content[key], root) for key in content.files})
        elif name.endswith(".pkl"):
            _store_plain(target, pickle.loads(path.read_bytes()), root)
        elif name.endswith(".pth"):
            _store_checkpoint(target, path, root)
        elif name.endswith(".zip"):
            _store_archive(target, path, root)
        else:
            target.with_name(f"{name}.txt").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    except Exception as error:
        target.with_name(f"{name}.txt").write_text(f"cannot be read: {type(error).__name__}: {error}")


def _store_arrays(target: Path, arrays: dict[str, np.ndarray]) -> None:
    if target.suffix == ".png" and arrays["array"].size > 100_000:  # a figure: who could say how it differs?
        pixels = arrays["array"]
        found = {"shape": pixels.shape, "pixels": hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()}
        target.with_name(f"{target.name}.json").write_text(json.dumps(found))
        return
    np.savez_compressed(target.with_name(f"{target.name}.npz"), **arrays)


def _image(path: Path) -> dict[str, np.ndarray]:
    if path.name.endswith(".nii.gz"):
        import SimpleITK as sitk

        image = sitk.ReadImage(str(path))
        geometry = np.array([*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()])
        return {"array": sitk.GetArrayFromImage(image), "geometry": geometry}
    from skimage import io as image_io

    return {"array": np.asarray(image_io.imread(path))}


def _readable(array: np.ndarray, root: Path) -> np.ndarray:
    return np.array(normalised(str(array), root)) if array.dtype.kind in "US" else array


def _store_plain(target: Path, content: Any, root: Path) -> None:
    text = json.dumps(content, indent=1, default=lambda value: f"{type(value).__name__} {value!r}"[:2000])
    target.with_name(f"{target.name}.json").write_text(normalised(text, root))


def _store_checkpoint(target: Path, path: Path, root: Path) -> None:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=False)
    weights = content.pop("network_weights")
    _store_arrays(target, {key: value.numpy() for key, value in weights.items()})
    _store_plain(target, content, root)


def _store_archive(target: Path, path: Path, root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        for member in sorted(Path(folder).rglob("*")):
            if member.is_file():
                _store(member, target / member.relative_to(folder), root)


def _visible(page: str) -> str:
    """Text and pictures of a page, one piece a line; how it looks is left out."""
    pictures = [hashlib.sha256(found.encode()).hexdigest()[:16] for found in re.findall(r'data:image/[^"\')]+', page)]
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.S)
    pieces = (" ".join(piece.split()) for piece in re.sub(r"<[^>]*>", "\n", page).split("\n"))
    return "\n".join([*filter(None, pieces), *(f"picture {picture}" for picture in pictures)]) + "\n"


def _store_review(folder: Path, store: Path) -> None:
    """What a user takes from the folder, by case, whichever command made it."""
    store.mkdir(parents=True)
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(folder.rglob("*")):
        image = path.name.endswith((".nii.gz", ".png"))
        case = re.match(r"scan_\d+", path.name)
        if not case or "review" in path.relative_to(folder).parts[:-1]:
            continue
        kind = re.sub(r"(\.nii\.gz|\.png|\.npz)$", "", path.name)[case.end() :].strip("_") or "segmentation"
        if image:
            arrays[f"{case[0]} {kind}"] = _image(path)["array"]
        elif path.suffix == ".npz":
            with np.load(path) as content:
                arrays[f"{case[0]} probabilities"] = content["probabilities"]
    np.savez_compressed(store / "arrays.npz", **arrays)
    (store / "list.json").write_text(json.dumps(_rows(folder), indent=1))


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The list of cases: by case, column and value; numbers as numbers."""
    rows: dict[str, dict[str, Any]] = {}
    for path in folder.glob("review*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["case"], {}).update({key: _number(value) for key, value in row.items()})
    if (folder / "decision.json").is_file():
        document = json.loads((folder / "decision.json").read_text())
        for row in document["cases"]:
            found = rows.setdefault(row["case"], {})
            for key, structure in row["structures"].items():
                found[f"{document['structures'][key]} expected_dice"] = _rounded(structure["expected_dice_after"])
    return rows


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(f"{value:.6g}")


def _number(text: str | None) -> Any:
    try:
        return float(text) if text else None
    except ValueError:
        return text


# ------------------------------------------------------------------------------------------------------------- compare


@dataclass(frozen=True)
class Difference:
    """``field`` is a JSON path, the name of an array, or the number of a line."""

    operation: str
    file: str
    field: str
    what: str

    def exception(self) -> str | None:
        """Why it is allowed, if it is."""
        for operation, file, field, reason in EXCEPTIONS:
            if (
                fnmatch.fnmatch(self.operation.split("/")[-1], operation)
                and fnmatch.fnmatch(self.file, file)
                and fnmatch.fnmatch(self.field, field)
            ):
                return reason
        return None


def compare(before: Path, after: Path, tolerance: float, only: Sequence[str], most: int) -> int:
    """Print the differences; 1 if there are any that no exception allows."""
    found = list(_differences(before, after, tolerance, only))
    allowed: dict[str, int] = {}
    shown = []
    for difference in found:
        reason = difference.exception()
        if reason:
            allowed[reason] = allowed.get(reason, 0) + 1
        else:
            shown.append(difference)
    last, in_file = None, 0
    for difference in shown:
        place = (difference.operation, difference.file)
        in_file = in_file + 1 if place == last else 1
        last = place
        if in_file <= most:
            print(f"{difference.operation}: {difference.file}: {difference.field}: {difference.what}")
        elif in_file == most + 1:
            more = sum((d.operation, d.file) == place for d in shown) - most
            print(f"{difference.operation}: {difference.file}: and {more} more")
    for reason, count in allowed.items():
        print(f"allowed ({count}): {reason}")
    operations = len(list(after.glob("*/*/operation.json")))
    print(f"{len(shown)} differences in {operations} operations")
    return 1 if shown else 0


def _differences(before: Path, after: Path, tolerance: float, only: Sequence[str]) -> Iterator[Difference]:
    ran = json.loads((after / "gate.json").read_text())
    folders = [{path.parent.relative_to(side) for path in side.glob("*/*/operation.json")} for side in (before, after)]
    for folder in sorted(folders[0] | folders[1]):
        name = str(folder)
        if only and not any(folder.name.startswith(beginning) for beginning in only):
            continue
        if folder not in folders[0] or folder not in folders[1]:
            side = "before" if folder not in folders[0] else "after"
            if not (side == "after" and not ran.get("all")):
                yield Difference(name, "", "", f"not run {side}")
            continue
        yield from _operation_differences(name, before / folder, after / folder, tolerance)


def _operation_differences(name: str, before: Path, after: Path, tolerance: float) -> Iterator[Difference]:
    heads = [json.loads((side / "operation.json").read_text()) for side in (before, after)]
    if heads[0]["status"] != heads[1]["status"]:
        yield Difference(name, "", "status", f"{heads[0]['status']} -> {heads[1]['status']}")
    same_command = heads[0]["command"] == heads[1]["command"]
    review = (before / "review").is_dir()
    if review:
        for file in ("list.json", "arrays.npz"):
            pair = before / "review" / file, after / "review" / file
            for difference in _file_differences(name, f"review/{file}", *pair, tolerance):
                if same_command or difference.what != "only after":  # the later generation may write more
                    yield difference
        if not same_command:
            return  # what they print, and their other files, cannot be the same
    names = [{str(path.relative_to(side)) for path in side.rglob("*") if path.is_file()} for side in (before, after)]
    for file in sorted(names[0] | names[1]):
        if file in ("operation.json", "written.json") or file.startswith("review/"):
            continue
        if not same_command and (file == "stdout.txt" or file not in names[0]):
            continue
        if file not in names[0] or file not in names[1]:
            yield Difference(name, file, "", f"only {'after' if file not in names[0] else 'before'}")
        else:
            yield from _file_differences(name, file, before / file, after / file, tolerance)


def _file_differences(name: str, file: str, before: Path, after: Path, tolerance: float) -> Iterator[Difference]:
    if before.read_bytes() == after.read_bytes():
        return
    root = Path("ROOT")  # replaced already; but the patterns may be newer than the run
    compared: Callable[..., Iterator[tuple[str, str]]]
    if file.endswith(".npz"):
        compared, read = _array_differences, _read_arrays
    elif file.endswith(".json"):
        compared, read = _value_differences, lambda path: json.loads(normalised(path.read_text(), root))
    else:
        compared, read = _line_differences, lambda path: normalised(path.read_text(), root)
    pairs = list(compared(read(before), read(after), tolerance))
    for field, what in pairs:
        yield Difference(name, file, field, what)
    if file.endswith(".json") and not (pairs or tolerance or _same_text(before, after, root)):
        yield Difference(name, file, "", "the same content, written in another way")


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return {key: content[key] for key in content.files}


def _same_text(before: Path, after: Path, root: Path) -> bool:
    return normalised(before.read_text(), root) == normalised(after.read_text(), root)


def _array_differences(before: dict, after: dict, tolerance: float) -> Iterator[tuple[str, str]]:
    for key in sorted(set(before) | set(after)):
        if key not in before or key not in after:
            yield key, f"only {'after' if key not in before else 'before'}"
            continue
        a, b = before[key], after[key]
        if a.shape != b.shape or a.dtype != b.dtype:
            yield key, f"{a.dtype}{a.shape} -> {b.dtype}{b.shape}"
        elif a.dtype.kind == "f":
            apart = np.abs(a.astype(float) - b.astype(float))
            wrong = (apart > tolerance) | (np.isnan(a) != np.isnan(b))
            if wrong.any():
                yield key, f"{wrong.sum()} of {a.size} values, by up to {np.nanmax(apart):.3g}"
        elif not np.array_equal(a, b):
            yield key, f"{np.sum(a != b)} of {a.size} values" if a.shape else f"{str(a)[:80]} -> {str(b)[:80]}"


def _value_differences(before: Any, after: Any, tolerance: float, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            here = f"{place}.{key}" if place else key
            if key not in before or key not in after:
                yield here, f"only {'after' if key not in before else 'before'}"
            else:
                yield from _value_differences(before[key], after[key], tolerance, here)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (a, b) in enumerate(zip(before, after)):
            yield from _value_differences(a, b, tolerance, f"{place}[{i}]")
    elif not _same_value(before, after, tolerance):
        yield place, f"{_short(before)} -> {_short(after)}"


def _same_value(a: Any, b: Any, tolerance: float) -> bool:
    if type(a) in (int, float) and type(b) in (int, float):
        return a == b or (a != a and b != b) or abs(a - b) <= tolerance * max(1.0, abs(a), abs(b))
    return type(a) is type(b) and a == b


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def _line_differences(before: str, after: str, tolerance: float) -> Iterator[tuple[str, str]]:
    import difflib

    a, b = before.splitlines(), after.splitlines()
    if tolerance and len(a) == len(b):
        a = [mine if _same_line(mine, other, tolerance) else other for mine, other in zip(b, a)]
    for tag, i0, i1, j0, j1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            removed, added = ("".join(f"{line[:160]!r} " for line in lines[:3]) for lines in (a[i0:i1], b[j0:j1]))
            yield f"line {i0 + 1}", f"{removed or 'nothing '}-> {added or 'nothing'}"


def _same_line(a: str, b: str, tolerance: float) -> bool:
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    return all(_same_value(float(x), float(y), tolerance) for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="make the corpus")
    make.add_argument("folder", type=Path)
    running = commands.add_parser("run", help="carry out the operations and store what they leave")
    running.add_argument("output", type=Path)
    running.add_argument("--corpus", type=Path, help="a corpus that is made already (default: make one)")
    running.add_argument("--datasets", default="", help="names, as Classes,Regions (default: all)")
    running.add_argument("--skip", default="", help="beginnings of names to leave out: compare,page draw figures")
    running.add_argument("--keep", action="store_true", help="keep the workspace, to look at")
    comparing = commands.add_parser("compare", help="list the differences of two runs")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--tolerance", type=float, default=0.0, help="for floats, relative above 1 (default: exact)")
    comparing.add_argument("--most", type=int, default=12, help="differences shown of one file (default: %(default)s)")
    for one in (running, comparing):
        one.add_argument("--only", default="", help="beginnings of operations' names, as evaluate,calibrate")
    args = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    only = [name for name in getattr(args, "only", "").split(",") if name]
    if args.command == "make":
        from tests.gate_corpus import make_corpus

        make_corpus(args.folder.resolve())
        return 0
    if args.command == "run":
        datasets = [name for name in args.datasets.split(",") if name]
        skip = [name for name in args.skip.split(",") if name]
        run(args.output, args.corpus, only, skip, datasets, args.keep)
        return 0
    return compare(args.before, args.after, args.tolerance, only, args.most)


if __name__ == "__main__":
    sys.exit(main())
