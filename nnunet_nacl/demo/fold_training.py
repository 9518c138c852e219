"""One training with nnUNetv2_train: how far it is, the command that resumes it, and its progress."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.demo.demo_schedule import schedule_of, short_name
from nnunet_nacl.demo.shell_commands import Command
from nnunet_nacl.demo.time_left import Work
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict

PLANS = "nnUNetPlans"

_START_S = 12.0
_EPOCH_OVERHEAD_S = 0.5
_ITERATION_S = {"cpu": 0.2, "cuda": 0.1}  # by device, for 2d_small of usual data and for 2d
_CASE_S = {"cpu": 2.0, "cuda": 3.0}
_EPOCH_STARTS = re.compile(r"(?:^|: )Epoch (\d+)\s*$")
_EPOCH_ENDS = re.compile(r"(?:^|: )Epoch time: ")
_PREDICTS = re.compile(r"(?:^|: )predicting ")


@dataclass
class Training:
    """A trainer on one fold.

    Attributes:
        results: nnUNet_results.
        dataset: `DatasetNNN_Name`.
        trainer: Trainer name.
        configuration: Configuration of the plans.
        fold: `0` to `4` or `all`.
        num_validation_cases: Expected number, for the time left.
        device: As nnUNetv2_train takes it.
        work_per_iteration: Relative to that of usual data, for the time left.
    """

    results: Path
    dataset: str
    trainer: str
    configuration: str
    fold: str
    num_validation_cases: int
    device: str
    work_per_iteration: float = 1.0

    def __post_init__(self):
        schedule = schedule_of(self.trainer)
        device = "cpu" if self.device == "cpu" else "cuda"
        epoch_s = _EPOCH_OVERHEAD_S + 1.1 * schedule.iterations * _ITERATION_S[device] * self.work_per_iteration
        self.start = Work(1, _START_S)
        self.epochs = Work(schedule.epochs, epoch_s)
        self.validation = Work(self.num_validation_cases + 1, _CASE_S[device])

    @property
    def model_folder(self) -> Path:
        """Folder of the trained folds."""
        return self.results / self.dataset / f"{self.trainer}__{PLANS}__{self.configuration}"

    @property
    def fold_folder(self) -> Path:
        """Folder of this fold."""
        return self.model_folder / f"fold_{self.fold}"

    @property
    def validation_folder(self) -> Path:
        """Where nnU-Net puts what it predicts for the validation cases."""
        return self.fold_folder / "validation"

    @property
    def job(self) -> list[Work]:
        """What there is to do, for the time left."""
        return [self.start, self.epochs, self.validation]

    def state(self) -> str:
        """`new`, `continue` (there is a checkpoint), `validate` (trained, predictions missing) or `done`.

        A checkpoint that was cut off while it was written is removed, so that nnU-Net takes the one before.
        """
        for name in ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"):
            checkpoint = self.fold_folder / name
            if checkpoint.is_file() and not zipfile.is_zipfile(checkpoint):
                checkpoint.unlink()
        if (self.fold_folder / "checkpoint_final.pth").is_file():
            return "done" if self._is_validated() else "validate"
        if any((self.fold_folder / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best")):
            return "continue"
        return "new"

    def _is_validated(self) -> bool:
        """nnU-Net writes summary.json last; each case in it needs probabilities beside its prediction."""
        try:
            summary = read_dict(self.validation_folder / "summary.json")
            cases = [Path(case["prediction_file"]).name for case in summary["metric_per_case"]]
        except (UserError, KeyError, TypeError):
            return False
        return bool(cases) and all((self.validation_folder / (_stem(case) + ".npz")).is_file() for case in cases)

    def command(self, log_folder: Path, threads: int | None) -> Command:
        """The stock command that does what is missing.

        Args:
            log_folder: Where its output goes.
            threads: CPU threads of the training; None leaves them to the environment.
        """
        dataset_id = str(int(self.dataset.removeprefix("Dataset").partition("_")[0]))
        arguments = ["nnUNetv2_train", dataset_id, self.configuration, self.fold, "-tr", self.trainer, "-p", PLANS]
        arguments += ["--npz", "-device", self.device]
        state = self.state()
        if state == "continue":
            arguments.append("--c")
        elif state == "validate":
            arguments.append("--val")
            self.epochs.skip()
        log_file = log_folder / f"train_{self.dataset}_{self.trainer}_{self.configuration}_fold_{self.fold}.log"
        environment = {} if threads in (None, 1) else {"OMP_NUM_THREADS": str(threads)}
        return Command(tuple(arguments), log_file, environment, self.on_line)

    def on_line(self, line: str) -> None:
        """Follows the progress in nnU-Net's output."""
        if match := _EPOCH_STARTS.search(line):
            self.start.finish()
            self.epochs.skip(int(match[1]))
        elif _EPOCH_ENDS.search(line):
            self.epochs.reach(self.epochs.done + 1)
        elif _PREDICTS.search(line):
            self.start.finish()
            self.epochs.finish()
            # The first of these lines says that prediction begins; the last unit is the export of what is left.
            self.validation.reach(min(self.validation.done + 1, self.validation.units - 1))

    def skip(self) -> None:
        """Marks everything as done by an earlier run."""
        for work in self.job:
            work.skip()

    def described(self) -> str:
        """Where it stands, in a few words."""
        if self.validation.done > 0:
            return f"{short_name(self.trainer)} validating"
        return f"{short_name(self.trainer)} epoch {self.epochs.done:.0f}/{self.epochs.units:.0f}"


def _stem(file_name: str) -> str:
    return file_name.removesuffix(".gz").rsplit(".", 1)[0]
