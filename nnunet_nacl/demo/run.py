"""The demo's steps, one after the other; each is skipped if an earlier run has done it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from pathlib import Path

from nnunet_nacl.demo.commands import Command, export_line, run_side_by_side
from nnunet_nacl.demo.download import download_task
from nnunet_nacl.demo.plans import SMALL_SUFFIX, add_small_configuration, parent_configuration
from nnunet_nacl.demo.progress import ProgressBar, Work
from nnunet_nacl.demo.settings import DemoSettings
from nnunet_nacl.demo.summary import summarize
from nnunet_nacl.demo.task import Task, read_task
from nnunet_nacl.demo.training import Training
from nnunet_nacl.demo.virtual_brains import TASK_NAME, write_virtual_brains
from nnunet_nacl.demo.workspace import Workspace
from nnunet_nacl.errors import UserError
from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, bridge_folder

_SUBJECTS = (24, 4)

# On the CPU many small steps get further in the same time than few large ones.
_VIRTUAL_BRAINS_BATCH = 4


def run_demo(settings: DemoSettings, show_progress: bool = True) -> Path:
    """Runs what is missing and writes the summary.

    Args:
        settings: See `nnunet_nacl.demo.settings.resolve`.
        show_progress: Whether to draw the progress bar; what is done is printed in any case.

    Returns:
        The folder with the table and the figure.

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
        on_cpu = settings.device == "cpu"
        self.configuration = settings.configuration or ("2d" + SMALL_SUFFIX if on_cpu else "2d")
        self.environment = {
            "nnUNet_raw": str(workspace.raw),
            "nnUNet_preprocessed": str(workspace.preprocessed),
            "nnUNet_results": str(workspace.results),
        }
        if on_cpu:
            self.environment |= {
                "nnUNet_n_proc_DA": "1",
                "nnUNet_def_n_proc": "1",
                # threads that spin while they wait take a hundred times as long on a busy machine
                "OMP_WAIT_POLICY": "PASSIVE",
            }
        known = os.environ.get(ENVIRONMENT_VARIABLE, "")
        if bridge_folder() not in known.split(os.pathsep):
            self.environment[ENVIRONMENT_VARIABLE] = os.pathsep.join(filter(None, [known, bridge_folder()]))
        self.make = Work("virtual subjects", sum(_SUBJECTS), 0.7)
        self.convert = Work("conversion", 1, 8.0)
        self.preprocess = Work("preprocessing", 1, 20.0)

    def run(self) -> Path:
        settings = self.settings
        if settings.download is not None:
            print(f"Downloading {settings.download} from the Medical Segmentation Decathlon's public mirror")
            download_task(settings.download, self.workspace.data, show_progress=self.show_progress)
        folder = settings.data or self.workspace.data / (settings.download or TASK_NAME)
        task = None if self.virtual and not folder.exists() else read_task(folder)
        dataset = "Dataset090_VirtualBrains" if task is None else task.dataset
        num_training = _SUBJECTS[0] if task is None else task.num_training
        share = max(1.0, settings.parallel / settings.cores) if settings.device == "cpu" else settings.parallel
        trainings = [
            Training(
                self.workspace.results,
                dataset,
                trainer,
                self.configuration,
                fold,
                num_training if fold == "all" else -(-num_training // 5),
                settings.device,
                work_per_iteration=share * (0.35 if self.virtual else 1.0),
            )
            for fold in settings.folds
            for trainer in settings.trainers
        ]
        waves = [trainings[i : i + settings.parallel] for i in range(0, len(trainings), settings.parallel)]
        evaluate = Work("evaluation", len(trainings), 2.0)
        self._introduce(folder)
        plan = [
            [[self.make] if task is None else []],
            [[self.convert]],
            [[self.preprocess]],
            *[[training.job for training in wave] for wave in waves],
            [[evaluate]],
        ]
        with ProgressBar(plan, self.show_progress) as bar:
            self.bar = bar
            if task is None:
                task = self._make(folder)
            self._convert(task)
            self._preprocess(task)
            self._train(waves)
            bar.describe("measuring calibration")
            evaluate.start()
            folder = self.workspace.folder / "summary" / f"{task.dataset}__{self.configuration}"
            references = self.workspace.preprocessed / task.dataset / "gt_segmentations"

            def on_progress(done: float) -> None:
                evaluate.reach(done)
                bar.refresh()

            with _one_thread():
                text = summarize(trainings, references, task, folder, on_progress)
            evaluate.finish()
        print("\n\n".join(filter(None, [text, self._next_steps(task)])))
        return folder

    def _introduce(self, task_folder: Path) -> None:
        settings = self.settings
        what = "virtual brains (made from a template; not patients)" if self.virtual else str(task_folder)
        where = f"the CPU ({settings.cores} cores)" if settings.device == "cpu" else settings.device
        print(
            f"Data: {what}\nTrainers: {', '.join(settings.trainers)}\n"
            f"Folds {', '.join(settings.folds)}, configuration {self.configuration}, on {where}, "
            f"{settings.parallel} at the same time\n"
            f"Everything goes to {settings.folder}; interrupt with Ctrl-C at any time, the same command goes on.\n\n"
            "The commands are nnU-Net's own. To run them by hand, first set its folders:\n"
            f"$ {export_line(self.environment)}\n",
            flush=True,
        )

    def _next_steps(self, task: Task) -> str:
        """The commands that go on from the demo's results; nothing where there is nothing to compare."""
        settings, folder = self.settings, str(self.workspace.folder / "comparison")
        if len(settings.trainers) < 2:
            return ""
        compare = [
            "nnunet_nacl",
            "compare",
            "-d",
            str(task.id),
            "-c",
            self.configuration,
            "-f",
            *settings.folds,
            "-tr",
            *settings.trainers,
            "-o",
            folder,
        ]
        report = ["nnunet_nacl", "report", "-o", folder]
        return "\n".join(
            [
                "Next: statistics, ranks and figures over the same cases, and a page to read them on:",
                f"$ {export_line(self.environment)}",
                f"$ {shlex.join(compare)}",
                f"$ {shlex.join(report)}",
            ]
        )

    def _make(self, folder: Path) -> Task:
        self.bar.describe("making virtual brains")
        self.bar.write(f"Making {sum(_SUBJECTS)} virtual brains in {folder}")
        self.make.start()

        def on_subject(done: int, total: int) -> None:
            self.make.reach(done)
            self.bar.refresh()

        return read_task(write_virtual_brains(folder, *_SUBJECTS, on_subject=on_subject))

    def _convert(self, task: Task) -> None:
        target = self.workspace.raw / task.dataset
        source = self.workspace.source_of(task.dataset)
        if source is not None and source != str(task.folder):
            raise UserError(
                f"{self.workspace.folder} holds {task.dataset} from another folder, {source}; give another "
                "folder with -o"
            )
        if (target / "dataset.json").is_file():  # nnU-Net writes it last
            self.workspace.set_source(task.dataset, task.folder)
            self.convert.skip(1)
            return
        if target.exists():
            if source is None:
                raise UserError(
                    f"{target} exists, has no dataset.json and is not the demo's: give another folder with -o"
                )
            shutil.rmtree(target)  # a conversion of ours that was broken off
        self.workspace.set_source(task.dataset, task.folder)
        processes = str(min(self.settings.cores, 8))
        self._run_one(
            ["nnUNetv2_convert_MSD_dataset", "-i", str(task.folder), "-np", processes],
            f"convert_{task.dataset}",
            "converting",
            self.convert,
        )

    def _preprocess(self, task: Task) -> None:
        parent = parent_configuration(self.configuration)
        plans_file = self.workspace.preprocessed / task.dataset / "nnUNetPlans.json"
        if self.workspace.is_preprocessed(task.dataset, parent):
            self.preprocess.skip(1)
        else:
            processes = str(min(self.settings.cores, 8))
            if self.workspace.is_planned(task.dataset):  # planning anew would drop the small configuration
                arguments = ["nnUNetv2_preprocess", "-d", str(task.id), "-c", parent, "-np", processes]
            else:
                arguments = [
                    "nnUNetv2_plan_and_preprocess",
                    "-d",
                    str(task.id),
                    "-c",
                    parent,
                    "-npfp",
                    processes,
                    "-np",
                    processes,
                    "--verify_dataset_integrity",
                ]
            self._run_one(
                arguments, f"preprocess_{task.dataset}_{parent}", "planning and preprocessing", self.preprocess
            )
            planned = json.loads(plans_file.read_text(encoding="utf-8"))["configurations"]
            if parent not in planned:
                raise UserError(
                    f"nnU-Net has not planned a configuration {parent!r} for {task.dataset}; there are "
                    f"{', '.join(planned)}"
                )
            self.workspace.set_preprocessed(task.dataset, parent)
        if self.configuration.endswith(SMALL_SUFFIX):
            name, described = add_small_configuration(
                plans_file, parent, _VIRTUAL_BRAINS_BATCH if self.virtual else None
            )
            self.bar.write(
                f"Configuration {name} in {plans_file.name}, a network for the CPU: {parent} with {described}"
            )

    def _train(self, waves: list[list[Training]]) -> None:
        for wave in waves:
            states = {id(training): training.state() for training in wave}
            for training in wave:
                if states[id(training)] == "done":
                    training.finish()
            todo = [training for training in wave if states[id(training)] != "done"]
            if not todo:
                continue
            threads = max(1, self.settings.cores // len(todo)) if self.settings.device == "cpu" else None
            self._run(
                [training.command(self.workspace.logs, threads) for training in todo],
                lambda todo=todo: ", ".join(training.described() for training in todo),
            )
            for training in todo:
                training.finish()

    def _run_one(self, arguments: list[str], log: str, what: str, work: Work) -> None:
        work.start()
        self._run([Command(tuple(arguments), self.workspace.logs / f"{log}.log")], lambda: what)
        work.finish()

    def _run(self, commands: list[Command], describe) -> None:
        if len(commands) > 1:
            self.bar.write(f"{len(commands)} at the same time:")
        for command in commands:
            self.bar.write(f"$ {command.shown()}")
        run_side_by_side(commands, self.environment, lambda: self.bar.describe(describe()), self.inherited)


@contextlib.contextmanager
def _one_thread():
    """PyTorch's threads spin while they wait: on a busy machine more than one is slower than one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
