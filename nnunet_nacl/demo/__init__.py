"""`nnunet_nacl demo`: from a Decathlon task to calibrated models and a comparison, by commands that it shows."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.demo.virtual_brains import BAD, TASK_NAME, write_virtual_brains
from nnunet_nacl.errors import UserError, termination_as_interrupt
from nnunet_nacl.evaluation.page import PAGE_NAME
from nnunet_nacl.files import locked, write_atomically
from nnunet_nacl.json_files import read_dict, read_json
from nnunet_nacl.methods import PREFIX
from nnunet_nacl.worklist.list_files import PAGE as REVIEW_PAGE

SCHEDULES = {"virtual brains": (10, 100), "cpu": (40, 50), "gpu": (50, 100)}
"""Epochs, iterations per epoch: with that of the virtual brains the demo takes ten minutes at most on two CPU cores."""

_SMALL = "_small"
_FEW_SCANS = 10  # more are not predicted in passing
_POLL_S = 0.5


class Demo:
    """The demo on arguments as `nnunet_nacl demo` has them."""

    def __init__(self, args: argparse.Namespace):
        import torch
        from joblib import cpu_count

        self.folder, self.virtual, self.folds = Path(os.path.abspath(args.o)), args.data is None, args.f
        self.task = Path(os.path.abspath(args.data or self.folder / "data" / TASK_NAME))  # a link keeps its name
        name = re.fullmatch(r"Task([0-9]{1,3})_([A-Za-z0-9.-]+)", self.task.name)
        if name is None or not (self.virtual or self.task.is_dir()):
            raise UserError(f"--data {self.task}: give a folder of the Decathlon's format named TaskNN_Name")
        self.dataset = f"Dataset{int(name[1]):03d}_{name[2]}"
        self.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        on_cpu, cores = self.device == "cpu", cpu_count()
        epochs, iterations = SCHEDULES["gpu" if not on_cpu else "virtual brains" if self.virtual else "cpu"]
        losses = [f"{PREFIX}{loss}_{epochs}epochs_{iterations}iters_adam" for loss in ("DiceCE", "NACL")]
        self.trainers: list[str] = args.tr or losses
        self.configuration = args.c or ("2d" + _SMALL if on_cpu else "2d")
        self.parallel = min(cores, len(self.trainers) * len(self.folds)) if on_cpu else 1
        self.processes = str(min(cores, 8))
        self.bad = BAD if self.virtual else ("0.8",)
        names = [f"nnUNet_{kind}" for kind in ("raw", "preprocessed", "results")]
        self.roots = {name: self.folder / name for name in names}
        self.raw, self.preprocessed, self.results = (root / self.dataset for root in self.roots.values())
        self.logs, self.commands = self.folder / "logs" / self.dataset, self.folder / "commands.sh"
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
        self.environment = {**os.environ, **{name: str(root) for name, root in self.roots.items()}, "PATH": path}
        self.environment["PYTHONUNBUFFERED"] = "1"
        if on_cpu:  # threads that spin while they wait take a hundred times as long on a busy machine
            threads = str(max(1, cores // self.parallel))
            self.environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": threads}
            self.environment["OMP_WAIT_POLICY"] = "PASSIVE"

    def run(self) -> None:
        """Runs what is missing."""
        taken = f"another demo is running in {self.folder}; wait for it, or give another folder with -o"
        with locked(self.folder / ".lock", taken), termination_as_interrupt():
            how_long = "at most ten minutes on two cores" if self.virtual and self.device == "cpu" else "a while"
            print(
                f"Everything goes to {self.folder}; this takes {how_long}. Ctrl-C stops it: the same command goes on.\n"
                f"The commands are listed in {self.commands.name} there, and logs/ holds what they print."
            )
            variables = " ".join(f"{name}={shlex.quote(str(root))}" for name, root in self.roots.items())
            write_atomically(self.folder / "environment.sh", f"export {variables}\n")
            self._prepare()
            self._train()
            calibrated = self._calibrate()
            page = self._compare(calibrated)
            review = self._predict(calibrated[0]) if calibrated else None
            pages = {"new scans, those to look at first": review, "comparison of the trainings": page}
            print("Open in a browser:", *(f"  {what}: {path}" for what, path in pages.items() if path), sep="\n")
            print("One short training each shows the way; it ranks no loss.")

    def _run(self, *commands: tuple[str, Sequence[object]], again: bool = False) -> None:
        """Commands at the same time, by the name of their log, unless an earlier run has done them; all are listed."""
        named = {self.logs / f"{name}.log": [str(word) for word in words] for name, words in commands}
        started = [(words, log) for log, words in named.items() if again or not log.with_suffix(".done").is_file()]
        begin = 'source "$(dirname "$0")/environment.sh"\n'
        text = self.commands.read_text(encoding="utf-8") if self.commands.is_file() else begin
        lines = [line for words, _ in started if (line := f"{shlex.join(words)}\n") not in text]
        write_atomically(self.commands, text + "".join(lines))
        run_together(started, self.environment)
        for _, log in started:
            log.with_suffix(".done").touch()

    def _said(self, name: str, begin: str) -> list[str]:
        """The last lines of a log from one that matches on, up to an empty one; none where none does."""
        lines = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()
        start = max((i for i, line in enumerate(lines) if re.match(begin, line)), default=len(lines))
        return list(itertools.takewhile(str.strip, lines[start:]))

    def _prepare(self) -> None:
        """Raw data, plans, folds and preprocessed cases."""
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        made = "virtual brains (a template, not patients), half of them noisy but for those that are trained on"
        _step(1, f"Data: {made if self.virtual else self.task}")
        if self.virtual and not self.task.exists():
            write_virtual_brains(self.task)
        for root in self.roots.values():
            root.mkdir(exist_ok=True)
        if self.raw.exists() and not (self.logs / "convert.log").is_file():
            raise UserError(f"{self.raw} was not made by this demo; give another -o")
        if not (self.raw / "dataset.json").is_file():  # nnU-Net writes it last, and begins no conversion again
            shutil.rmtree(self.raw, ignore_errors=True)
        number, processes = ["-d", int(self.dataset[7:10])], self.processes
        check = ["-npfp", processes, "--no_pp", "--verify_dataset_integrity"]
        self._run(("convert", ["nnUNetv2_convert_MSD_dataset", "-i", self.task, "-np", processes]))
        self._run(("plan", ["nnUNetv2_plan_and_preprocess", *number, *check]))
        splits = self.preprocessed / "splits_final.json"
        if not splits.exists():  # nnU-Net's first training makes it, and another would read it half written
            cases = sorted(path.name.removesuffix(".nii.gz") for path in (self.raw / "labelsTr").glob("*.nii.gz"))
            given = self.task / "splits_final.json"  # such as one that keeps a patient's scans together
            made = read_json(given) if given.is_file() else generate_crossval_split(cases, n_splits=5)
            write_atomically(splits, json.dumps(made, indent=4))
        parent = self.configuration.removesuffix(_SMALL)
        self._run((f"preprocess_{parent}", ["nnUNetv2_preprocess", *number, "-c", parent, "-np", processes]))
        if parent != self.configuration:
            add_small_configuration(self.preprocessed / "nnUNetPlans.json", parent, 4 if self.virtual else None)

    def _train(self) -> None:
        """Trains and validates what is not done yet."""
        todo: list[tuple[str, list[object]]] = []
        for fold, trainer in itertools.product(self.folds, self.trainers):
            folder = self.results / f"{trainer}__nnUNetPlans__{self.configuration}" / f"fold_{fold}"
            if not (folder / "validation" / "summary.json").is_file():  # nnU-Net writes it last
                train = ["nnUNetv2_train", self.dataset, self.configuration, fold, "-tr", trainer, "--npz"]
                train += ["-device", self.device, *(["--c"] if any(folder.glob("checkpoint_*.pth")) else [])]
                todo.append((f"train_{trainer}_{self.configuration}_fold_{fold}", train))
        names = " and ".join(name.removeprefix(PREFIX).partition("_")[0] for name in self.trainers)
        _step(2, f"Train and validate {names}, {self.parallel} at the same time: this takes longest")
        for start in range(0, len(todo), self.parallel):
            self._run(*todo[start : start + self.parallel], again=True)

    def _options(self, trainer: str) -> list[object]:
        return ["-d", self.dataset, "-c", self.configuration, "-f", *self.folds, "-tr", trainer]

    def _calibrate(self) -> list[str]:
        """Calibrates each model on its validation cases; those of which that could be done."""
        _step(3, "Calibrate each model on its validation cases")
        calibrated = []
        for trainer in self.trainers:
            name = "_".join(["calibrate", trainer, self.configuration, *self.folds])
            try:
                self._run((name, ["nnunet_nacl", "calibrate", *self._options(trainer)]))
                print(f"   {trainer}:", *(line.strip() for line in self._said(name, "Where nnU-Net segments")[:1]))
                calibrated.append(trainer)
            except UserError as error:  # too few validation cases, perhaps: no reason to lose the comparison
                print(f"{error}\nIt goes on without it.")
        return calibrated

    def _compare(self, calibrated: list[str]) -> Path | None:
        """The page of the trainers, and of the same calibrated; None where there is one alone."""
        if len(self.trainers) + len(calibrated) < 2:
            return None
        _step(4, "Compare them")
        first, *others = [*self.trainers, *(f"{trainer}+calibrated" for trainer in calibrated)]
        folder = self.folder / "comparison" / f"{self.dataset}__{self.configuration}"
        options = [*self._options(first), *others, "-o", folder, "-bad", *self.bad]
        self._run(("compare", ["nnunet_nacl", "compare", *options]), again=True)
        return folder / PAGE_NAME

    def _predict(self, trainer: str) -> Path | None:
        """A few new scans by a calibrated model, and their page; of many, how they are predicted."""
        scans = self.raw / "imagesTs"
        output = self.folder / "predictions" / f"{self.dataset}__{trainer}__{self.configuration}"
        predict = ["nnunet_nacl", "predict", "-i", scans, "-o", output, *self._options(trainer)]
        predict += ["-bad", *self.bad, "-device", self.device]
        if not 0 < len(list(scans.glob("*_0000.*"))) <= _FEW_SCANS:
            _step(5, f"Predict new scans when you like: {shlex.join(map(str, predict))}")
            return None
        _step(5, "Predict new scans, and list those to look at first")
        self._run(("predict", predict), again=True)
        told = [*self._said("predict", r"\d+ of \d+ scans? ")[:1], *self._said("predict", "In brackets")[1:]]
        print(*(f"   {line}" for line in told), sep="\n")
        return output / REVIEW_PAGE


def _step(number: int, text: str) -> None:
    print(f"{number}. {text}", flush=True)


def run_together(commands: Sequence[tuple[list[str], Path]], environment: dict[str, str]) -> None:
    """Runs commands at the same time, with their logs; whatever ends this, they and their workers have ended, too.

    UserError where a command failed, whose log's end is shown; the others are stopped.
    """
    running: list[subprocess.Popen] = []
    try:
        for command, log in commands:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a") as file:
                to: Any = {"stdout": file, "stderr": subprocess.STDOUT}
                process = subprocess.Popen(command, **to, env=environment, start_new_session=True)
                running.append(process)
        while None in (statuses := [process.poll() for process in running]) and not any(statuses):
            time.sleep(_POLL_S)
        for (command, log), status in zip(commands, statuses):
            if status:
                told = f"the end of {log}:\n{log.read_text(errors='replace')[-1000:]}"
                raise UserError(f"this command ended with status {status}:\n  $ {shlex.join(command)}; {told}")
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if hasattr(os, "killpg") else os.kill)(process.pid, signal.SIGTERM)  # Windows has no groups
            process.wait()


def add_small_configuration(plans_file: Path, parent: str, largest_batch: int | None = None) -> None:
    """Adds `<parent>_small` to nnU-Net's plans: many small steps get further in the same time than few large ones.

    It has 3/8 of the planned features, so 12, 24, 48, ... for nnU-Net's 32, 64, 128, ..., and batches of at most
    ``largest_batch`` (16 slices, or 2 patches in 3D); all else, the preprocessed data included, is the parent's.
    """
    plans = read_dict(plans_file)
    planned = plans["configurations"][parent]
    settings = planned["architecture"]["arch_kwargs"]
    features = [max(1, round(3 / 8 * width)) for width in settings["features_per_stage"]]
    plans["configurations"][parent + _SMALL] = {
        "inherits_from": parent,
        "batch_size": min(planned["batch_size"], largest_batch or {2: 16, 3: 2}[len(planned["patch_size"])]),
        "architecture": planned["architecture"] | {"arch_kwargs": settings | {"features_per_stage": features}},
    }
    write_atomically(plans_file, json.dumps(plans, indent=4))
