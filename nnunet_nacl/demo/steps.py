"""The demo's steps: commands of nnU-Net's and of this package, shown and run one after the other."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from nnunet_nacl.calibration.flags import DEFAULT_BAD
from nnunet_nacl.demo.decathlon import dataset_of, download_task
from nnunet_nacl.demo.training_settings import SCHEDULES, SMALL, add_small_configuration, with_schedule
from nnunet_nacl.demo.virtual_brains import BAD, TASK_NAME, write_virtual_brains
from nnunet_nacl.documents.comparison_file import COMPARISON_FILE, PAGE_NAME
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import locked, write_atomically
from nnunet_nacl.json_files import read_json
from nnunet_nacl.registration.grammar import parse
from nnunet_nacl.registration.health import check_known
from nnunet_nacl.registration.variants import STOCK
from nnunet_nacl.review.review_list import PAGE as REVIEW_PAGE
from nnunet_nacl.shell_commands import CommandFailed, assignments, run_side_by_side

_FEW_SCANS = 10  # more are not predicted in passing


class Demo:
    """The demo on arguments as `nnunet_nacl demo` has them.

    Raises:
        UserError: Data, names or folders cannot be used, or a command failed.
    """

    dataset: str

    def __init__(self, args: argparse.Namespace):
        import torch
        from joblib import cpu_count

        self.args, self.folder, self.virtual = args, Path(os.path.abspath(args.o)), not (args.data or args.download)
        self.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.bad = BAD if self.virtual else (f"{DEFAULT_BAD:g}",)
        on_cpu, cores, self.folds = self.device == "cpu", cpu_count(), list(dict.fromkeys(args.f))
        usual = SCHEDULES["gpu" if not on_cpu else "virtual brains" if self.virtual else "cpu"]
        epochs, iterations = (u if given is None else given for given, u in zip((args.epochs, args.iters), usual))
        count = len(set(args.tr)) * len(self.folds)
        # three trainings share two cores better than two of them followed by one alone
        busy = -(-count // max(1, count // cores)) if on_cpu else 1
        self.parallel = busy if args.np is None else args.np
        for flag, value in (("-epochs", epochs), ("-iters", iterations), ("-np", self.parallel)):
            if value < 1:
                raise UserError(f"{flag} must be at least 1, received {value}")
        self.trainers = list(dict.fromkeys(with_schedule(name, epochs, iterations, not args.sgd) for name in args.tr))
        for name in self.trainers:
            check_known(name)
        self.configuration = args.c or ("2d" + SMALL if on_cpu else "2d")
        self.processes = ["-np", min(cores, 8)]
        self.environment = {f"nnUNet_{kind}": str(self._place(kind)) for kind in ("raw", "preprocessed", "results")}
        if on_cpu:  # threads that spin while they wait take a hundred times as long on a busy machine
            threads = str(max(1, cores // min(self.parallel, count)))
            self.environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": threads}
            self.environment["OMP_WAIT_POLICY"] = "PASSIVE"

    def run(self) -> None:
        """Runs what is missing."""
        taken = f"another demo is running in {self.folder}; wait for it, or give another folder with -o"
        with locked(self.folder / ".lock", taken):
            self._run_all()

    def _run_all(self) -> None:
        args, brains = self.args, "virtual brains (made from a template; not patients)"
        self._say(
            f"Data: {args.data or args.download or brains}\nTrainers: {', '.join(self.trainers)}\n"
            f"Folds {', '.join(self.folds)}, configuration {self.configuration}, on {self.device}, {self.parallel} at "
            f"the same time\nEverything goes to {self.folder}; interrupt with Ctrl-C at any time, the same command "
            "resumes.\n\nAll steps are nnU-Net's commands and this package's. To run them by hand, first set nnU-Net's "
            f"folders:\n$ export {assignments(self.environment)}\n"
        )
        task = self.folder / "data" / (args.download or TASK_NAME)
        if args.data:
            task = Path(os.path.abspath(args.data))  # a link keeps its own name
        elif args.download:
            self._say(f"Downloading {args.download} from the Medical Segmentation Decathlon's public mirror")
            download_task(args.download, task.parent)
        elif not task.exists():
            self._say(f"Making virtual brains in {task}")
            write_virtual_brains(task)
        self.dataset = dataset_of(task)
        self._prepare(task)
        self._train()
        probabilities = task / "probabilitiesTr"  # of the labels, where they are known
        truth = self._measure(probabilities) if probabilities.is_dir() else None
        calibrated = self._calibrate()
        page = self._compare(truth, calibrated)
        review = self._predict(calibrated[0]) if calibrated else None
        if page.parent.is_dir():
            self._conclude(page, review)

    def _place(self, kind: str, *more: str) -> Path:
        return self.folder.joinpath(f"nnUNet_{kind}", *more)

    def _model(self, trainer: str) -> Path:
        return self._place("results", self.dataset, f"{trainer}__nnUNetPlans__{self.configuration}")

    def _options(self, trainer: str) -> list[object]:
        return ["-d", self.dataset, "-c", self.configuration, "-f", *self.folds, "-tr", trainer]

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / self.dataset / f"{name}.log"

    def _say(self, text: str) -> None:
        tqdm.write(text, file=sys.stdout)  # above a bar
        sys.stdout.flush()

    def _run(self, *commands: tuple[list[object], str], on_poll=lambda: None) -> None:
        """Commands at the same time, each with the name of its log; without one to the terminal."""
        started = [([str(w) for w in words], self._log(log) if log else None) for words, log in commands]
        together = f"{len(started)} at the same time:\n" if len(started) > 1 else ""
        self._say(together + "\n".join(f"$ {shlex.join(command)}" for command, _ in started))
        run_side_by_side(started, self.environment, on_poll=on_poll)

    def _once(self, name: str, *command: object) -> None:
        """A command, unless it was done by an earlier run."""
        done = self._log(name).with_suffix(".done")
        if not done.is_file():
            self._run((list(command), name))
            done.touch()

    def _prepare(self, task: Path) -> None:
        """Raw data, plans, folds and preprocessed cases."""
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        raw, folder = (self._place(kind, self.dataset) for kind in ("raw", "preprocessed"))
        origin = self._log("convert").with_name("source")
        source = os.path.relpath(task, self.folder) if task.is_relative_to(self.folder) else str(task)  # may be moved
        if raw.exists() and (not origin.is_file() or origin.read_text(encoding="utf-8") != source):
            raise UserError(f"{raw} was not made from {task} here; give another -o")
        if not (raw / "dataset.json").is_file():  # nnU-Net writes it last, and begins no conversion again
            shutil.rmtree(raw, ignore_errors=True)
        write_atomically(origin, source)
        for kind in ("raw", "preprocessed", "results"):
            self._place(kind).mkdir(exist_ok=True)
        self._once("convert", "nnUNetv2_convert_MSD_dataset", "-i", task, *self.processes)
        number = ["-d", int(self.dataset[7:10])]
        check = ["-npfp", self.processes[1], "--no_pp", "--verify_dataset_integrity"]
        self._once("plan", "nnUNetv2_plan_and_preprocess", *number, *check)
        splits = folder / "splits_final.json"
        if not splits.exists():  # nnU-Net's first training makes it, and another would read it half written
            cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").glob("*.nii.gz"))
            given = task / "splits_final.json"  # such as one that keeps a patient's scans together
            made = read_json(given) if given.is_file() else generate_crossval_split(cases, n_splits=5)
            write_atomically(splits, json.dumps(made, indent=4))
        parent = self.configuration.removesuffix(SMALL)
        self._once(f"preprocess_{parent}", "nnUNetv2_preprocess", *number, "-c", parent, *self.processes)
        if parent != self.configuration:
            add_small_configuration(folder / "nnUNetPlans.json", parent, 4 if self.virtual else None)
            self._say(f"Added {self.configuration} to the plans: {parent} with smaller batches and fewer features")

    def _train(self) -> None:
        """Trains and validates what is not done yet, under one bar that counts the epochs of all."""
        todo, epochs = [], 0
        for fold, trainer in itertools.product(self.folds, self.trainers):
            folder = self._model(trainer) / f"fold_{fold}"
            train = ["nnUNetv2_train", self.dataset, self.configuration, fold, "-tr", trainer, "--npz"]
            train += ["-device", self.device, *(["--c"] if any(folder.glob("checkpoint_*.pth")) else [])]
            if not (folder / "validation" / "summary.json").is_file():  # nnU-Net writes it last
                todo.append((train, f"train_{trainer}_{self.configuration}_fold_{fold}"))
                epochs += (parse(trainer) or STOCK).epochs or 1000

        def done() -> int:
            logs = (self._log(log) for _, log in todo)
            return sum(log.read_text(errors="replace").count("Epoch time: ") for log in logs if log.is_file())

        with tqdm(total=epochs, unit="epoch", leave=False, disable=not todo) as bar:
            for start in range(0, len(todo), self.parallel):
                wave = todo[start : start + self.parallel]
                self._run(*wave, on_poll=lambda: bar.update(done() - bar.n))

    def _measure(self, probabilities: Path) -> Path:
        """Evaluates with masks that suit large voxels, and the true probabilities of the same cases; their folder."""
        truth = self.folder / "true_probabilities" / "_".join(["fold", *self.folds])
        truth.mkdir(parents=True, exist_ok=True)
        model, radii = self._model(self.trainers[0]), ["-dilated", 4, "-boundary", 4]  # mm: the next voxel is 3.5 away
        cases = (path for fold in self.folds for path in (model / f"fold_{fold}" / "validation").glob("*.npz"))
        for path in (model / "dataset.json", model / "plans.json", *(probabilities / case.name for case in cases)):
            shutil.copy2(path, truth)
        evaluated = {trainer: self._options(trainer) for trainer in self.trainers}
        labels = self._place("raw", self.dataset, "labelsTr")
        for name, predictions in (evaluated | {"truth": ["-i", truth, "-gt", labels, "--chill"]}).items():
            self._run((["nnunet_nacl", "evaluate", *predictions, *radii], f"evaluate_{name}"))
        return truth

    def _calibrate(self) -> list[str]:
        """Calibrates each model on its validation cases; those of which that could be done."""
        calibrated = []
        for trainer in self.trainers:
            name = "_".join(["calibrate", trainer, self.configuration, *self.folds])
            try:
                self._once(name, "nnunet_nacl", "calibrate", *self._options(trainer))
                calibrated.append(trainer)
            except CommandFailed as error:  # too few validation cases, perhaps: no reason to lose the comparison
                self._say(f"{error}\nThe comparison goes on without it.")
        return calibrated

    def _compare(self, truth: Path | None, calibrated: list[str]) -> Path:
        """The page of trainers, the same calibrated, and the truth."""
        first, *others = [*self.trainers, *(f"{trainer}+calibrated" for trainer in calibrated)]
        folder = self.folder / "comparison" / f"{self.dataset}__{self.configuration}"
        compare = ["nnunet_nacl", "compare", *self._options(first), *others, "-o", folder, "-bad", *self.bad]
        if truth:
            compare += ["-i", f"true probabilities={truth}", "-unranked", "true probabilities"]
        elif not others:
            compare = ["nnunet_nacl", "evaluate", *self._options(first)]
        self._run((compare, ""))
        return folder / PAGE_NAME

    def _predict(self, trainer: str) -> Path | None:
        """A few new scans by a calibrated model, and their page; of many, how they are predicted."""
        scans = self._place("raw", self.dataset, "imagesTs")
        output = self.folder / "predictions" / f"{self.dataset}__{trainer}__{self.configuration}"
        predict = ["nnunet_nacl", "predict", "-i", scans, "-o", output, *self._options(trainer)]
        predict += ["-bad", *self.bad, "-device", self.device, "--continue_prediction"]
        if not 0 < len(list(scans.glob("*_0000.*"))) <= _FEW_SCANS:
            self._say(f"New scans, later:\n$ {shlex.join(map(str, predict))}")
            return None
        self._run((predict, ""))
        return output / REVIEW_PAGE

    def _conclude(self, page: Path, review: Path | None) -> None:
        """What was gained, what to type next, and the pages to open."""
        comparison = read_json(page.with_name(COMPARISON_FILE))
        print()
        for row in comparison["statistics"]:
            if (row["trainer"], row["column"]) == (f"{row['reference']}+calibrated", "ECE:predicted"):
                before, after = row["mean_reference"], row["mean"]
                print(f"Calibration took the ECE where a structure is predicted from {before:.3f} to {after:.3f}.")
        if any(not trainer.get("ranked", True) for trainer in comparison["trainers"]):
            print(
                "The true probabilities show what a perfectly calibrated network reaches: the foreground is chosen by "
                "the true labels, so that not even they reach 0 there."
            )
        print(
            "One training each, on a short schedule: this shows the workflow, it does not rank the methods.\n\n"
            "Next: your own data. Further commands need nnU-Net's folders:\n"
            f"$ export {assignments(self.environment)}\n\nPages, to open in a browser:"
        )
        if review:
            print(f"  new scans, those to look at first: {review}")
        print(f"  comparison: {page}")
