"""The demo's folder: where things lie, what has been done, and that only one demo works in it at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import Optional, mismatch, read_dict

_STATE = {"converted": Optional({"*": str}), "preprocessed": Optional({"*": [str]})}


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

    def source_of(self, dataset: str) -> Path | None:
        """The task folder that a dataset was converted from."""
        source = self._read("converted").get(dataset)
        return None if source is None else self.folder / source

    def set_source(self, dataset: str, task_folder: Path) -> None:
        """Remembers a conversion; a task in the demo's folder by its place there, so that the folder can be moved."""
        inside = task_folder.is_relative_to(self.folder)
        source = task_folder.relative_to(self.folder) if inside else task_folder
        self._update("converted", dataset, str(source))

    def is_preprocessed(self, dataset: str, configuration: str) -> bool:
        """Whether a configuration's data were preprocessed to the end."""
        return self.is_planned(dataset) and configuration in self._read("preprocessed")[dataset]

    def is_planned(self, dataset: str) -> bool:
        """Whether any configuration was planned and preprocessed to the end."""
        plans = self.preprocessed / dataset / "nnUNetPlans.json"
        return bool(self._read("preprocessed").get(dataset)) and plans.is_file()

    def set_preprocessed(self, dataset: str, configuration: str) -> None:
        """Remembers a preprocessing."""
        self._update("preprocessed", dataset, [*self._read("preprocessed").get(dataset, []), configuration])

    def _read(self, key: str) -> dict[str, Any]:
        return self._state().get(key, {})

    def _state(self) -> dict[str, Any]:
        if not self._state_file.is_file():
            return {}
        try:
            state = read_dict(self._state_file)
            problem = mismatch(state, _STATE)
        except UserError as error:
            problem = str(error)
        if problem:
            raise UserError(
                f"{self._state_file} is damaged ({problem}); remove it: data are prepared again, trainings kept"
            )
        return state

    def _update(self, key: str, dataset: str, value: Any) -> None:
        state = self._state()
        state.setdefault(key, {})[dataset] = value
        write_atomically(self._state_file, to_json_text(state))
