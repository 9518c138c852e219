"""The demo's steps, one after the other: a small campaign, run here, and what only the demo has around it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_nacl.campaign.grid import CampaignModel
from nnunet_nacl.campaign.shell_commands import Command, CommandFailed, export_line, run_side_by_side
from nnunet_nacl.campaign.stages import command, comparison_command, job_commands
from nnunet_nacl.datasets.decathlon_task import Task, read_task
from nnunet_nacl.demo.decathlon_download import download_task
from nnunet_nacl.demo.options import DemoSettings, TrainingProgress, schedule_of
from nnunet_nacl.demo.small_network import SMALL_SUFFIX, add_small_configuration, parent_configuration
from nnunet_nacl.demo.virtual_brains import MASK_RADIUS_MM, TASK_NAME, write_virtual_brains
from nnunet_nacl.documents.comparison_file import COMPARISON_FILE, PAGE_NAME
from nnunet_nacl.file_lock import locked
from nnunet_nacl.json_files import read_json
from nnunet_nacl.prediction.review_list import PAGE as REVIEW_PAGE
from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, bridge_folder
from nnunet_nacl.show.findings import gained

_SUBJECTS = (24, 4)
_TRUTH = "TrueProbabilities"

# On the CPU many small steps get further in the same time than few large ones.
_VIRTUAL_BRAINS_BATCH = 4

_FEW_SCANS = 10  # more are not predicted in passing


def run_demo(settings: DemoSettings) -> Path:
    """Runs what is missing, then `nnunet_nacl compare` and `nnunet_nacl review`.

    Args:
        settings: See `nnunet_nacl.demo.options.DemoSettings`.

    Returns:
        The folder of the comparison.

    Raises:
        UserError: If data, names or folders cannot be used, or a command fails.
    """
    taken = f"another demo is running in {settings.folder}; wait for it, or give another folder with -o"
    with locked(settings.folder / ".lock", taken) as inherited:
        return _Demo(settings, inherited).run()


class _Demo:
    """One run: the plan of what to do, and its steps in order."""

    def __init__(self, settings: DemoSettings, inherited: list[int]):
        self.settings = settings
        self.inherited = inherited
        self.folder = settings.folder
        self.virtual = settings.data is None and settings.download is None
        self.on_cpu = settings.device == "cpu"
        self.configuration = settings.configuration or ("2d" + SMALL_SUFFIX if self.on_cpu else "2d")
        self.environment: dict[str, str] = {}
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            self.environment[name] = str(self.folder / name)
        if self.on_cpu:
            # threads that spin while they wait take a hundred times as long on a busy machine
            threads = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
            self.environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", **threads}
        given = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if bridge_folder() not in given.split(os.pathsep):
            self.environment[ENVIRONMENT_VARIABLE] = os.pathsep.join(filter(None, [given, bridge_folder()]))

    def run(self) -> Path:
        settings, data = self.settings, self.folder / "data"
        data.mkdir(exist_ok=True)
        if settings.download is not None:
            print(f"Downloading {settings.download} from the Medical Segmentation Decathlon's public mirror")
            download_task(settings.download, data)
        folder = settings.data or data / (settings.download or TASK_NAME)
        task = None if self.virtual and not folder.exists() else read_task(folder)
        self._introduce(folder)
        if task is None:
            write_line(f"Making {sum(_SUBJECTS)} virtual brains in {folder}")
            task = read_task(write_virtual_brains(folder, *_SUBJECTS))
        self._plan(task)
        self._preprocess()
        self._train()
        truth = None if task.probabilities is None else self._measure(task.probabilities)
        calibrated = self._calibrate()
        folder = self._compare(truth, calibrated)
        review, later = self._predict(calibrated[0]) if calibrated else (None, [])
        if folder.is_dir():
            self._close(folder, truth, review, later)
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

    def _plan(self, task: Task) -> None:
        """The campaign whose jobs are run."""
        folds = list(self.settings.folds)
        self.dataset = task.dataset
        self.campaign = {
            "datasets": [{"name": task.dataset, "source": "decathlon", "folder": str(task.folder), "folds": folds}],
            "plans": "nnUNetPlans",
            "treatments": ["calibrated+decided"],
            "cases": "validation",
            "keep": "all",
            "device": self.settings.device,
            "processes": min(self.settings.cores, 8),
            "environment": self.environment,
        }
        self.models = [
            CampaignModel(self.campaign, task.dataset, self.configuration, t) for t in self.settings.trainers
        ]

    def _preprocess(self) -> None:
        parent = parent_configuration(self.configuration)
        for job in (f"prepare/{self.dataset}", f"preprocess/{self.dataset}/{parent}"):
            self._run({job: job_commands(self.campaign, job)})
        if self.configuration.endswith(SMALL_SUFFIX):
            plans_file = self.folder / "nnUNet_preprocessed" / self.dataset / "nnUNetPlans.json"
            batch = _VIRTUAL_BRAINS_BATCH if self.virtual else None
            name, described = add_small_configuration(plans_file, parent, batch)
            write_line(f"Configuration {name} in {plans_file.name} is for the CPU: {parent} with {described}")

    def _train(self) -> None:
        """Trains what is not trained yet, under one bar that counts the epochs of all."""
        todo = {}
        for fold in self.settings.folds:
            for model in self.models:
                job = model.job("train", f"fold_{fold}")
                first = next(job_commands(self.campaign, job), None)
                if first is not None:
                    trained = first.arguments[0] != "nnUNetv2_train" or first.arguments[-1] == "--val"
                    todo[job] = TrainingProgress(model.trainer, self._log(job), trained)
        total, done = (sum(getattr(one, what) for one in todo.values()) for what in ("epochs", "epochs_done"))
        look = {"unit": "epoch", "smoothing": 0, "miniters": 0, "leave": False, "dynamic_ncols": True}
        look |= {"mininterval": 0.5 if sys.stderr.isatty() else 30.0, "disable": not todo}
        with tqdm(total=total, initial=done, **look) as bar:  # earlier runs say nothing of the speed
            for start in range(0, len(todo), self.settings.parallel):
                wave = list(todo)[start : start + self.settings.parallel]

                def show(wave: list[str] = wave) -> None:
                    bar.set_description_str(", ".join(todo[job].described() for job in wave), refresh=False)
                    bar.update(sum(one.epochs_done for one in todo.values()) - bar.n)

                threads = max(1, self.settings.cores // len(wave)) if self.on_cpu else 1
                more = {} if threads == 1 else {"environment": {"OMP_NUM_THREADS": str(threads)}}
                self._run({job: self._training(job, **more) for job in wave}, show)

    def _training(self, job: str, **more: Any) -> Iterator[Command]:
        for one in job_commands(self.campaign, job):
            yield replace(one, **more)

    def _log(self, job: str) -> Path:
        return self.folder / "logs" / f"{job.replace('/', '_')}.log"

    def _run(self, jobs: Mapping[str, Iterable[Command]], on_poll: Callable[[], None] = lambda: None) -> None:
        """Commands by the names of their jobs, at the same time; their output goes to a log for each job."""
        if len(jobs) > 1:
            write_line(f"{len(jobs)} at the same time:")

        def logged(job: str) -> Iterator[Command]:
            return (replace(one, log_file=self._log(job)) for one in jobs[job])

        self._show(*map(logged, jobs), on_poll=on_poll)

    def _show(self, *jobs: Iterable[Command], on_poll: Callable[[], None] = lambda: None) -> None:
        """Commands whose output goes to the terminal, unless they have a log."""

        def start(one: Command) -> None:
            write_line(f"$ {one.shown()}")

        run_side_by_side(jobs, self.environment, on_start=start, on_poll=on_poll, keep_open=self.inherited)

    def _measure(self, probabilities: Path) -> Path:
        """Evaluates with masks that suit large voxels, and the true probabilities; gives the folder of their document.

        Other data need no command: the trainers have measured calibration after their validation.
        """
        radii = ["-dilated", f"{MASK_RADIUS_MM:g}", "-boundary", f"{MASK_RADIUS_MM:g}"]
        truth = replace(self.models[0], trainer=_TRUTH)
        for model in self.models:  # laid out as if a network had predicted them, so that the same commands read them
            for fold, folder in truth.folds.items():
                (folder / "validation").mkdir(parents=True, exist_ok=True)
                for path in (model.folds[fold] / "validation").glob("*.npz"):
                    shutil.copy2(probabilities / path.name, folder / "validation")
        for name in ("dataset.json", "plans.json"):
            shutil.copy2(self.models[0].folder / name, truth.folder)
        evaluated = (*self.models, truth)
        evaluate = ["nnunet_nacl", "evaluate"]
        self._run({one.job("evaluate"): [command(*evaluate, *one.arguments(), *radii)] for one in evaluated})
        # where `evaluate` writes its document: several folds have one together
        return truth.folder if len(truth.folds) > 1 else folder / "validation"

    def _calibrate(self) -> list[CampaignModel]:
        """Calibrates each model on its validation cases; those of which that could be done."""
        for model in self.models:
            try:
                self._run({(job := model.job("calibrate")): job_commands(self.campaign, job)})
            except CommandFailed as error:  # too few validation cases, perhaps: no reason to lose the comparison
                write_line(f"{error}\nThe comparison goes on without it.")
        return [model for model in self.models if model.is_calibrated]

    def _compare(self, truth: Path | None, calibrated: list[CampaignModel]) -> Path:
        """The tables: trainers, the same calibrated and decided for Dice, and the truth."""
        entries = [*self.settings.trainers, *(f"{model.trainer}+calibrated+decided" for model in calibrated)]
        folder = self.folder / "comparison" / f"{self.dataset}__{self.configuration}"
        label = "true probabilities"
        more = ["-f", *self.settings.folds, *([] if truth is None else ["-i", f"{label}={truth}", "-unranked", label])]
        compare = comparison_command(self.campaign, [self.dataset], self.configuration, entries, folder, *more)
        if len(entries) == 1 and truth is None:
            compare = command("nnunet_nacl", "evaluate", *self.models[0].arguments())
        self._show([compare])
        return folder

    def _predict(self, model: CampaignModel) -> tuple[Path | None, list[Command]]:
        """New scans, predicted by a calibrated model: their page, or the command if they are many."""
        scans = self.folder / "nnUNet_raw" / self.dataset / "imagesTs"
        output = self.folder / "predictions" / f"{self.dataset}__{model.trainer}__{self.configuration}"
        more = ["-device", self.settings.device, "--continue_prediction"]
        predict = command("nnunet_nacl", "predict", "-i", scans, "-o", output, *model.arguments(), *more)
        if not 0 < len(list(scans.glob("*_0000.*"))) <= _FEW_SCANS:
            return None, [predict]
        self._show([predict])
        return output / REVIEW_PAGE, []

    def _close(self, folder: Path, truth: Path | None, review: Path | None, later: list[Command]) -> None:
        """What was gained, what to type next, and the pages to open."""
        trainers, comparison = self.settings.trainers, read_json(folder / COMPARISON_FILE)
        print("", *gained(comparison, comparison["datasets"][0]), sep="\n")
        if truth is not None:
            print(
                "The true probabilities show what a perfectly calibrated network reaches: the foreground is chosen by "
                "the true labels, so that not even they reach 0 there."
            )
        if len({schedule_of(trainer) for trainer in trainers}) > 1:
            print("The trainers differ in schedule or optimiser, not only in their loss.")
        print(
            "One training each, on a short schedule: this shows the workflow, it does not rank the methods.\n\n"
            f"Next: {'segmentations of new scans. These' if later else 'your own data. Further'} commands need "
            f"nnU-Net's folders:\n$ {export_line(self.environment)}",
            *(f"$ {one.shown()}" for one in later),
            "\nPages, to open in a browser:",
            *([] if review is None else [f"  new scans, those to look at first: {review}"]),
            f"  comparison: {folder / PAGE_NAME}",
            sep="\n",
        )


def write_line(text: str) -> None:
    """Writes to standard output, above a bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
