"""One training with nnUNetv2_train: how far it is, the command that resumes it, and its progress; then calibration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.campaign.shell_commands import Command
from nnunet_nacl.cases.checkpoints import CALIBRATED
from nnunet_nacl.cases.fold_state import fold_state, is_validated
from nnunet_nacl.demo.demo_schedule import schedule_of, short_name
from nnunet_nacl.documents.map_file import MAP_FILE
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict

PLANS = "nnUNetPlans"

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
        device: As nnUNetv2_train takes it.
        epochs_done: How many are, as the output tells.
        epochs_before: Those of them that an earlier run did.
        validating: Whether it has got to the validation cases.
    """

    results: Path
    dataset: str
    trainer: str
    configuration: str
    fold: str
    device: str
    epochs_done: int = 0
    epochs_before: int = 0
    validating: bool = False

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
    def epochs(self) -> int:
        """How many there are to be."""
        return schedule_of(self.trainer).epochs

    def state(self) -> str:
        """`new`, `continue` (there is a checkpoint), `validate` (trained, predictions missing) or `done`.

        A checkpoint that was cut off while it was written is removed, so that nnU-Net takes the one before.
        """
        state = fold_state(self.fold_folder)
        if state != "trained":
            return state
        return "done" if is_validated(self.validation_folder, probabilities=True) else "validate"

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
            self.skip()
        log_file = log_folder / f"train_{self.dataset}_{self.trainer}_{self.configuration}_fold_{self.fold}.log"
        environment = {} if threads in (None, 1) else {"OMP_NUM_THREADS": str(threads)}
        return Command(tuple(arguments), log_file, environment, self.on_line)

    def on_line(self, line: str) -> None:
        """Follows the progress in nnU-Net's output."""
        if match := _EPOCH_STARTS.search(line):
            self.epochs_before += int(match[1]) - self.epochs_done
            self.epochs_done = int(match[1])
        elif _EPOCH_ENDS.search(line):
            self.epochs_done += 1
        elif _PREDICTS.search(line):
            self.validating = True

    def skip(self) -> None:
        """Marks the epochs as done by an earlier run."""
        self.epochs_done = self.epochs_before = self.epochs

    def described(self) -> str:
        """Where it stands, in a few words."""
        if self.validating:
            return f"{short_name(self.trainer)} validating"
        return f"{short_name(self.trainer)} epoch {self.epochs_done}/{self.epochs}"


def is_calibrated(folds: Sequence[Training]) -> bool:
    """Whether `nnunet_nacl calibrate`, which writes the map last, was run on these folds of a model once validated."""
    path = folds[0].model_folder / MAP_FILE
    try:
        validated = max((fold.validation_folder / "summary.json").stat().st_mtime_ns for fold in folds)
        same = read_dict(path).get("folds") == sorted(fold.fold for fold in folds)
        return (
            same and path.stat().st_mtime_ns > validated and all((f.fold_folder / CALIBRATED).is_file() for f in folds)
        )
    except (UserError, OSError):
        return False
