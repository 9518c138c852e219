"""How far a training is, from what nnU-Net prints."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nnunet_nacl.demo.demo_schedule import schedule_of, short_name

_EPOCH_STARTS = re.compile(r"(?:^|: )Epoch (\d+)\s*$")
_EPOCH_ENDS = re.compile(r"(?:^|: )Epoch time: ")
_PREDICTS = re.compile(r"(?:^|: )predicting ")


@dataclass
class TrainingProgress:
    """A trainer on one fold.

    Attributes:
        trainer: Trainer name.
        epochs_done: How many are, as the output tells.
        epochs_before: Those of them that an earlier run did.
        validating: Whether it has got to the validation cases.
    """

    trainer: str
    epochs_done: int = 0
    epochs_before: int = 0
    validating: bool = False

    @property
    def epochs(self) -> int:
        """How many there are to be."""
        return schedule_of(self.trainer).epochs

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
