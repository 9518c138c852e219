"""The demo's folder: where things lie, what has been done, and that only one demo works in it at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from nnunet_nacl.errors import UserError


class Workspace:
    """Folders and state of a demo.

    Attributes:
        folder: The demo's folder; everything else lies in it.
        raw, preprocessed, results: nnU-Net's three folders.
        data: Decathlon tasks made or downloaded.
        logs: Output of the commands.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.raw = folder / "nnUNet_raw"
        self.preprocessed = folder / "nnUNet_preprocessed"
        self.results = folder / "nnUNet_results"
        self.data = folder / "data"
        self.logs = folder / "logs"
        self._state_file = folder / "demo_state.json"

    def create(self) -> None:
        """Makes the folders."""
        for folder in (self.raw, self.preprocessed, self.results, self.data, self.logs):
            folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[list[int]]:
        """Holds the folder; gives the file descriptors for the commands to inherit.

        A command that inherits them keeps the folder held, should it outlive the demo.

        Raises:
            UserError: If another demo, or a command of it, holds the folder.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield []
            return
        with open(self.folder / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"another demo is running in {self.folder}; wait for it, or give another folder with -o"
                ) from error
            yield [file.fileno()]

    def source_of(self, dataset: str) -> str | None:
        """The task folder that a dataset was converted from."""
        return self._read().get("converted", {}).get(dataset)

    def set_source(self, dataset: str, task_folder: Path) -> None:
        """Remembers a conversion."""
        state = self._read()
        state.setdefault("converted", {})[dataset] = str(task_folder)
        self._write(state)

    def is_preprocessed(self, dataset: str, configuration: str) -> bool:
        """Whether a configuration's data were preprocessed to the end."""
        return self.is_planned(dataset) and configuration in self._read()["preprocessed"][dataset]

    def is_planned(self, dataset: str) -> bool:
        """Whether any configuration was planned and preprocessed to the end."""
        return (
            bool(self._read().get("preprocessed", {}).get(dataset))
            and (self.preprocessed / dataset / "nnUNetPlans.json").is_file()
        )

    def set_preprocessed(self, dataset: str, configuration: str) -> None:
        """Remembers a preprocessing."""
        state = self._read()
        done = state.setdefault("preprocessed", {}).setdefault(dataset, [])
        done.append(configuration)
        self._write(state)

    def _read(self) -> dict:
        try:
            return json.loads(self._state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def _write(self, state: dict) -> None:
        unfinished = self._state_file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, self._state_file)
