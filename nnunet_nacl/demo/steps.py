"""The demo's steps, one after the other; each is skipped if an earlier run has done it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from nnunet_nacl.campaign.shell_commands import Command, CommandFailed, export_line, run_side_by_side
from nnunet_nacl.cases.checkpoints import CALIBRATED
from nnunet_nacl.cases.decided_folder import FILE_NAME as DECISION_FILE
from nnunet_nacl.datasets.decathlon_task import Task, read_task
from nnunet_nacl.demo.decathlon_download import download_task
from nnunet_nacl.demo.demo_schedule import schedule_of
from nnunet_nacl.demo.fold_training import PLANS, Training, is_calibrated
from nnunet_nacl.demo.options import DemoSettings
from nnunet_nacl.demo.small_network import SMALL_SUFFIX, add_small_configuration, parent_configuration
from nnunet_nacl.demo.virtual_brains import MASK_RADIUS_MM, TASK_NAME, write_virtual_brains
from nnunet_nacl.demo.workspace import Workspace
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, bridge_folder

_SUBJECTS = (24, 4)
_TRUTH = "TrueProbabilities"

# On the CPU many small steps get further in the same time than few large ones.
_VIRTUAL_BRAINS_BATCH = 4

_FEW_SCANS = 10  # more are not predicted in passing


def run_demo(settings: DemoSettings, show_progress: bool = True) -> Path:
    """Runs what is missing, then `nnunet_nacl compare` and `nnunet_nacl decide`.

    Args:
        settings: See `nnunet_nacl.demo.options.resolve`.
        show_progress: Whether to draw the progress bar; what is done is printed in any case.

    Returns:
        The folder of the comparison.

    Raises:
        UserError: If data, names or folders cannot be used, or a command fails.
    """
    workspace = Workspace(settings.folder)
    workspace.create()
    with workspace.lock() as inherited:
        return _Demo(settings, workspace, inherited, show_progress).run()


class _Demo:
    """One run: the plan of what to do, and its steps in order."""

    def __init__(self, settings: DemoSettings, workspace: Workspace, inherited: list[int], show_progress: bool):
        self.settings = settings
        self.workspace = workspace
        self.inherited = inherited
        self.show_progress = show_progress
        self.virtual = settings.data is None and settings.download is None
        self.on_cpu = settings.device == "cpu"
        self.processes = str(min(settings.cores, 8))
        self.configuration = settings.configuration or ("2d" + SMALL_SUFFIX if self.on_cpu else "2d")
        self.environment = {
            "nnUNet_raw": str(workspace.raw),
            "nnUNet_preprocessed": str(workspace.preprocessed),
            "nnUNet_results": str(workspace.results),
        }
        if self.on_cpu:
            # threads that spin while they wait take a hundred times as long on a busy machine
            threads = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
            self.environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", **threads}
        known = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if bridge_folder() not in known.split(os.pathsep):
            self.environment[ENVIRONMENT_VARIABLE] = os.pathsep.join(filter(None, [known, bridge_folder()]))

    def run(self) -> Path:
        settings = self.settings
        if settings.download is not None:
            print(f"Downloading {settings.download} from the Medical Segmentation Decathlon's public mirror")
            download_task(settings.download, self.workspace.data, show_progress=self.show_progress)
        folder = settings.data or self.workspace.data / (settings.download or TASK_NAME)
        task = None if self.virtual and not folder.exists() else read_task(folder)
        self._introduce(folder)
        if task is None:
            _write(f"Making {sum(_SUBJECTS)} virtual brains in {folder}")
            task = read_task(write_virtual_brains(folder, *_SUBJECTS, progress=self.show_progress))
        self._convert(task)
        self._preprocess(task)
        place = self.workspace.results, task.dataset
        trainings = [
            Training(*place, trainer, self.configuration, fold, settings.device)
            for fold in settings.folds
            for trainer in settings.trainers
        ]
        self._train(trainings)
        truth = self._measure(task, trainings)
        calibrated = self._calibrate(task, trainings)
        folder = self._compare(task, truth, list(calibrated))
        new_scans = self._decide(task, calibrated) if calibrated else []
        if folder.is_dir():
            self._close(folder, truth, new_scans)
        return folder

    def _introduce(self, task_folder: Path) -> None:
        settings = self.settings
        what = "virtual brains (made from a template; not patients)" if self.virtual else str(task_folder)
        where = f"the CPU ({settings.cores} cores)" if self.on_cpu else settings.device
        print(
            f"Data: {what}\nTrainers: {', '.join(settings.trainers)}\n"
            f"Folds {', '.join(settings.folds)}, configuration {self.configuration}, on {where}, "
            f"{settings.parallel} at the same time\n"
            f"Everything goes to {settings.folder}; interrupt with Ctrl-C at any time, the same command resumes.\n\n"
            "All steps are nnU-Net's commands and this package's. To run them by hand, first set nnU-Net's folders:\n"
            f"$ {export_line(self.environment)}\n",
            flush=True,
        )

    def _convert(self, task: Task) -> None:
        target = self.workspace.raw / task.dataset
        source = self.workspace.source_of(task.dataset)
        if source is not None and source != task.folder:
            raise UserError(f"{self.workspace.folder} holds {task.dataset} of {source}; give another folder with -o")
        is_converted = (target / "dataset.json").is_file()  # nnU-Net writes it last
        if target.exists() and not is_converted:
            if source is None:
                raise UserError(f"{target} has no dataset.json and is not the demo's: give another folder with -o")
            shutil.rmtree(target)  # a conversion of ours that was broken off
        self.workspace.set_source(task.dataset, task.folder)
        if not is_converted:
            arguments = ["nnUNetv2_convert_MSD_dataset", "-i", str(task.folder), "-np", self.processes]
            self._run([self._command(arguments, f"convert_{task.dataset}")])

    def _preprocess(self, task: Task) -> None:
        parent = parent_configuration(self.configuration)
        plans_file = self.workspace.preprocessed / task.dataset / "nnUNetPlans.json"
        if not self.workspace.is_preprocessed(task.dataset, parent):
            if self.workspace.is_planned(task.dataset):  # planning anew would drop the small configuration
                arguments = ["nnUNetv2_preprocess", "-d", str(task.id), "-c", parent, "-np", self.processes]
            else:
                arguments = ["nnUNetv2_plan_and_preprocess", "-d", str(task.id), "-c", parent]
                arguments += ["-npfp", self.processes, "-np", self.processes, "--verify_dataset_integrity"]
            self._run([self._command(arguments, f"preprocess_{task.dataset}_{parent}")])
            planned = read_dict(plans_file)["configurations"]
            if parent not in planned:
                there = ", ".join(planned)
                raise UserError(f"nnU-Net has planned no configuration {parent!r} for {task.dataset}; it has {there}")
            self.workspace.set_preprocessed(task.dataset, parent)
        if self.configuration.endswith(SMALL_SUFFIX):
            batch = _VIRTUAL_BRAINS_BATCH if self.virtual else None
            name, described = add_small_configuration(plans_file, parent, batch)
            _write(f"Configuration {name} in {plans_file.name} is for the CPU: {parent} with {described}")

    def _train(self, trainings: list[Training]) -> None:
        """Trains what is not trained yet, under one bar that counts the epochs of all."""
        todo = [training for training in trainings if training.state() != "done"]
        total, interval = sum(training.epochs for training in todo), 0.5 if sys.stderr.isatty() else 30.0
        look = {"unit": "epoch", "smoothing": 0, "miniters": 0, "mininterval": interval, "leave": False}
        with tqdm(total=total, disable=not (self.show_progress and todo), dynamic_ncols=True, **look) as bar:
            for start in range(0, len(todo), self.settings.parallel):
                wave = todo[start : start + self.settings.parallel]

                def show(wave: list[Training] = wave) -> None:
                    bar.set_description_str(", ".join(training.described() for training in wave), refresh=False)
                    bar.initial = sum(training.epochs_before for training in todo)  # says nothing of the speed
                    bar.update(sum(training.epochs_done for training in todo) - bar.n)

                threads = max(1, self.settings.cores // len(wave)) if self.on_cpu else None
                self._run([training.command(self.workspace.logs, threads) for training in wave], show)

    def _measure(self, task: Task, trainings: list[Training]) -> Path | None:
        """Evaluates with masks that suit large voxels, and the true probabilities; None where these are not known.

        Other data need no command: the trainers have measured calibration after their validation.
        """
        if task.probabilities is None:
            return None
        radii = ["-dilated", f"{MASK_RADIUS_MM:g}", "-boundary", f"{MASK_RADIUS_MM:g}"]
        truth = trainings[0].model_folder.with_name(f"{_TRUTH}__{PLANS}__{self.configuration}")
        for training in trainings:  # laid out as if a network had predicted them, so that the same commands read them
            folder = truth / training.fold_folder.name / training.validation_folder.name
            folder.mkdir(parents=True, exist_ok=True)
            for path in training.validation_folder.glob("*.npz"):
                shutil.copy2(task.probabilities / path.name, folder)
        for name in ("dataset.json", "plans.json"):
            shutil.copy2(trainings[0].model_folder / name, truth)
        evaluate = ["nnunet_nacl", "evaluate", *self._models(task), *radii, "-tr"]
        names = [*self.settings.trainers, _TRUTH]
        commands = [self._command([*evaluate, name], f"evaluate_{task.dataset}_{name}") for name in names]
        self._run(commands)
        # where `evaluate` writes its document: several folds have one together
        return truth if len(self.settings.folds) > 1 else folder

    def _calibrate(self, task: Task, trainings: list[Training]) -> dict[str, list[Training]]:
        """Calibrates each model on its validation cases; the folds of those of which that could be done."""
        done = {}
        for trainer in self.settings.trainers:
            folds = [training for training in trainings if training.trainer == trainer]
            arguments = ["nnunet_nacl", "calibrate", *self._models(task), "-tr", trainer]
            try:
                if not is_calibrated(folds):
                    self._run([self._command(arguments, f"calibrate_{task.dataset}_{trainer}")])
            except CommandFailed as error:  # too few validation cases, perhaps: no reason to lose the comparison
                _write(f"{error}\nThe comparison goes on without it.")
            if is_calibrated(folds):
                done[trainer] = folds
        return done

    def _compare(self, task: Task, truth: Path | None, calibrated: list[str]) -> Path:
        """The tables: trainers, the same calibrated and decided for Dice, and the truth."""
        trainers = [*self.settings.trainers, *(f"{trainer}+calibrated+decided" for trainer in calibrated)]
        folder = self.workspace.folder / "comparison" / f"{task.dataset}__{self.configuration}"
        if len(trainers) == 1 and truth is None:
            self._show(["nnunet_nacl", "evaluate", *self._models(task), "-tr", *trainers])
            return folder
        oracle = [] if truth is None else ["-i", f"true probabilities={truth}"]
        self._show(["nnunet_nacl", "compare", *self._models(task), "-tr", *trainers, *oracle, "-o", str(folder)])
        return folder

    def _decide(self, task: Task, calibrated: dict[str, list[Training]]) -> list[str]:
        """New scans, predicted by the first calibrated model, decided for Dice; the commands, if they are many."""
        scans = self.workspace.raw / task.dataset / "imagesTs"
        trainer, folds = next(iter(calibrated.items()))
        name = f"{task.dataset}__{trainer}__{self.configuration}"
        predictions, decided = (str(self.workspace.folder / made / name) for made in ("predictions", "decided"))
        predict = ["nnUNetv2_predict", "-i", str(scans), "-o", predictions, *self._models(task), "-tr", trainer]
        predict += ["-chk", CALIBRATED, "--save_probabilities", "-device", self.settings.device]
        decide = ["nnunet_nacl", "decide", "-i", predictions, "-o", decided]
        if not 0 < len(list(scans.glob("*_0000.*"))) <= _FEW_SCANS:
            return [shlex.join(predict), shlex.join(decide)]
        checkpoint, finished = folds[-1].fold_folder / CALIBRATED, Path(decided, DECISION_FILE)
        if not finished.is_file() or finished.stat().st_mtime_ns < checkpoint.stat().st_mtime_ns:
            self._run([self._command(predict, f"predict_{name}")])
        self._show(decide)
        return []

    def _close(self, folder: Path, truth: Path | None, new_scans: list[str]) -> None:
        """What was made, what it shows, and what to type next."""
        trainers = self.settings.trainers
        print("\nReliability diagrams:", *sorted((folder / "figures").glob("reliability_*.png")), sep="\n  ")
        if truth is not None:
            print(
                "The true probabilities show what a perfectly calibrated network reaches: the foreground is chosen by "
                "the true labels, so that not even they reach 0 there."
            )
        if len({schedule_of(trainer) for trainer in trainers}) > 1:
            print("The trainers differ in schedule or optimiser, not only in their loss.")
        print(
            "One training each, on a short schedule: this shows the workflow, it does not rank the methods.\n\n"
            f"Next: a page to read the comparison on{', and segmentations of new scans' if new_scans else ''}. Further "
            f"commands need nnU-Net's folders:\n$ {export_line(self.environment)}",
            *(f"$ {command}" for command in (shlex.join(["nnunet_nacl", "report", "-o", str(folder)]), *new_scans)),
            sep="\n",
        )

    def _models(self, task: Task) -> list[str]:
        return ["-d", str(task.id), "-c", self.configuration, "-f", *self.settings.folds]

    def _command(self, arguments: list[str], log: str) -> Command:
        return Command(tuple(arguments), self.workspace.logs / f"{log}.log")

    def _show(self, arguments: list[str]) -> None:
        """Runs a command whose output goes to the terminal."""
        command = Command(tuple(arguments), None)
        print(f"$ {command.shown()}", flush=True)
        run_side_by_side([command], self.environment, keep_open=self.inherited)

    def _run(self, commands: list[Command], on_poll: Callable[[], None] = lambda: None) -> None:
        if len(commands) > 1:
            _write(f"{len(commands)} at the same time:")
        for command in commands:
            _write(f"$ {command.shown()}")
        run_side_by_side(commands, self.environment, on_poll, self.inherited)


def _write(text: str) -> None:
    """Writes lines to standard output, above a bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
