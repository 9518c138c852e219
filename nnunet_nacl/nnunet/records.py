"""The one loop over cases: records that hold are found, others are made; a broken case costs only itself."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.key import Key, file_key, same_contents
from nnunet_nacl.case.measure import measure
from nnunet_nacl.case.record import CaseRecord, find_record, record_path
from nnunet_nacl.case.settings import EvaluationSettings
from nnunet_nacl.errors import UserError, describe, one_line
from nnunet_nacl.files import lies_inside, remove_leftovers
from nnunet_nacl.nnunet.trust import TRUSTED
from nnunet_nacl.numbers.log_odds_map import LogOddsMap

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Work:
    """What is done with each case: it is measured. Can be pickled.

    Attributes:
        calibration: Map that probabilities are taken through; None leaves them.
        settings: What is measured beside a ground truth.
        with_sample: Keep the sample that calibration is fitted to.
    """

    calibration: LogOddsMap | None = None
    settings: EvaluationSettings = EvaluationSettings()
    with_sample: bool = False

    output: Path | None = None
    """Folder of the files that are written of a case; None where none are."""

    @property
    def key(self) -> dict[str, Any]:
        """What a record depends on, in JSON values, beside the files and networks of its case."""
        return {"map": self.calibration and self.calibration.to_json(), "measured": vars(self.settings)}

    def accepts(self, record: CaseRecord) -> bool:
        """Whether a record of the same key has all that is asked for."""
        return record.sample is not None or not self.with_sample

    def __call__(self, case: Case) -> CaseRecord:
        """The record of a case, once all its files are written."""
        return measure(case, self.calibration, settings=self.settings, with_sample=self.with_sample)


class Source(ABC):
    """Where cases come from; can be pickled.

    Attributes:
        names: Of the cases that can be had.
        problems: By name, why others cannot.
        key_follows_files: Whether the work on a case writes files that its key depends on.
    """

    names: Sequence[str]
    problems: dict[str, str]
    key_follows_files = False

    @abstractmethod
    def key(self, name: str, settings: dict[str, Any], earlier: Key | None) -> Key:
        """What the record of a case depends on now.

        Args:
            name: Of the case.
            settings: Further ones, in JSON values.
            earlier: Key of an earlier record.

        Raises:
            OSError: A file cannot be read.
        """

    @abstractmethod
    def path(self, name: str) -> Path:
        """The largest file of a case, for the lines that say what is wrong with it."""

    @abstractmethod
    def case(self, name: str) -> Case:
        """A case in memory; UserError where a file cannot be read or does not fit."""

    def each(
        self, names: Sequence[str], work: Callable[[Case], CaseRecord], jobs: int
    ) -> Generator[tuple[str, CaseRecord | str], None, None]:
        """Each case's record, or the line that says why there is none, in the order in which they are finished."""
        yield from side_by_side(partial(_record, self, work), names, jobs, self.path)


def _record(source: Source, work: Callable[[Case], CaseRecord], name: str) -> CaseRecord:
    try:
        return work(source.case(name))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{source.path(name)}: {error}; predict this case again.") from None


def records_of(
    source: Source,
    work: Work,
    folder: Path | None,
    *,
    names: Sequence[str] | None = None,
    jobs: int = 1,
    again: bool = False,
    only_found: bool = False,
    title: str = "",
) -> Iterator[tuple[str, CaseRecord | str]]:
    """The record of each case of a source, or the line that says why there is none.

    A record that an earlier run left holds while its key does, and while the files that it names lie in the output
    folder as they were written; it is given first. Each new one is written as soon as it is made.

    Args:
        source: Of the cases.
        work: What is done with a case that has no record.
        folder: Of the records; None keeps none.
        names: Some of the source's; None: all.
        jobs: Cases at the same time; 1 starts no process.
        again: Make all records anew.
        only_found: Make none.
        title: Of the progress bar on stderr; empty shows none.
    """
    from tqdm import tqdm

    names, keys, old = source.names if names is None else names, dict[str, Key](), dict[str, CaseRecord]()
    todo = []
    if folder is not None:
        remove_leftovers(folder)
    for name in names:
        if folder is not None and (found := find_record(folder, name)):
            old[name] = found
        try:
            keys[name] = source.key(name, work.key, old[name].key if name in old else None)
        except OSError as error:
            yield name, describe(error, source.path(name))
            continue
        if not again and name in old and _holds(old[name], keys[name], work):
            yield name, replace(old[name], key=keys[name])
        else:
            todo.append(name)
    outcomes = source.each(todo, work, jobs) if todo and not only_found else iter(())
    silent, n_done = only_found or not (title and todo), len(names) - len(todo)
    for name, outcome in tqdm(outcomes, title, len(names), initial=n_done, unit="case", disable=silent):
        if isinstance(outcome, str):
            yield name, one_line(outcome)
            continue
        record = replace(outcome, key=source.key(name, work.key, None) if source.key_follows_files else keys[name])
        if folder is not None:
            try:
                record.save(record_path(folder, name))
            except UserError as error:  # the disk is full: the next case may be smaller
                yield name, str(error)
                continue
        if work.output is not None and name in old:  # files of an earlier run with other settings
            for place in old[name].files.keys() - record.files.keys():
                if lies_inside(work.output / place, work.output):
                    (work.output / place).unlink(missing_ok=True)
        yield name, replace(record, pictures=b"")  # which are large; pages read them from the file


def _holds(record: CaseRecord, key: Key, work: Work) -> bool:
    """Whether a record is of this key, has all that is asked for, and its files lie there as they were written."""
    if not (same_contents(record.key, key) and work.accepts(record)):
        return False
    if work.output is None:
        return True
    try:
        files = {place: file_key(work.output / place, known) for place, known in record.files.items()}
    except OSError:
        return False
    return all(file["digest"] == record.files[place]["digest"] for place, file in files.items())


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int, path_of: Callable[[Item], Path]
) -> Generator[tuple[Item, Result | str], None, None]:
    """Call a function with each item.

    Args:
        work: Can be pickled if there are processes.
        items: Such as names of cases.
        processes: Items at the same time; 1 starts no process.
        path_of: The largest file of an item, for messages; can be pickled.

    Yields:
        Each item and its result, or the line that says why there is none, in the order in which they are finished.

    Raises:
        UserError: A process was killed, for lack of memory perhaps.
    """
    from concurrent.futures.process import BrokenProcessPool

    from joblib import Parallel, delayed

    if min(processes, len(items)) <= 1:
        yield from ((item, guarded(path_of(item), partial(work, item))) for item in items)
        return
    parallel = Parallel(min(processes, len(items)), "loky", return_as="generator_unordered", max_nbytes=None)
    outcomes = parallel(delayed(_in_worker)(work, item, path_of(item), TRUSTED.get(), os.getpid()) for item in items)
    try:
        for item_and_outcome in outcomes:  # noqa: UP028 - it is closed below
            yield item_and_outcome
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, for lack of memory or over a damaged file; run again with a smaller -np, the "
            "finished cases are kept."
        ) from None
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that results are left
            outcomes.close()


def guarded(path: Path, work: Callable[[], Result]) -> Result | str:
    """The result of ``work``, or the line that says why there is none: a broken case must not take others with it.

    Args:
        path: The case's largest file, which the line names if the error does not.
        work: Handles one case.
    """
    try:
        return work()
    except UserError as error:
        return str(error)
    except OSError as error:
        return describe(error, path)
    except MemoryError:
        size = f" ({path.stat().st_size / 2**20:.0f} MiB compressed)" if path.is_file() else ""
        return f"{path}{size}: not enough memory; run with a smaller -np."
    except Exception as error:
        return f"{path}: unexpected {type(error).__name__}: {error}"


@cache
def _settle(parent: int) -> None:
    """Once in each worker: one thread of PyTorch; no Ctrl-C, which its parent heeds; an end with that, if killed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    if hasattr(os, "fork"):  # Windows does not tell that a parent has ended
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _in_worker(
    work: Callable[[Item], Result], item: Item, path: Path, trusted: bool, parent: int
) -> tuple[Item, Result | str]:
    _settle(parent)
    TRUSTED.set(trusted)
    return item, guarded(path, partial(work, item))
