"""Does one thing to many cases side by side, and survives broken ones."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from pathlib import Path
from typing import Protocol, TypeVar

from nnunet_nacl.errors import UserError, describe
from nnunet_nacl.nnunet.trust import TRUSTED


class Task(Protocol):
    """What is to be done to one case; can be pickled."""

    @property
    def case(self) -> str:
        """Name of the case."""

    @property
    def path(self) -> Path:
        """Its largest file, for the lines that say what is wrong with it."""


OneCase = TypeVar("OneCase", bound=Task)
Result = TypeVar("Result")


def each_case(
    work: Callable[[OneCase], Result], cases: Sequence[OneCase], processes: int = 1
) -> Generator[tuple[OneCase, Result | str], None, None]:
    """Call a function with each case.

    Args:
        work: Handles one case; can be pickled if there are processes.
        cases: The cases.
        processes: Cases at the same time; 1 starts no process.

    Yields:
        Each case and its result, or the line that says why there is none, in the order in which they are finished.

    Raises:
        UserError: A process was killed, for lack of memory perhaps.
    """
    from joblib import Parallel, delayed

    if min(processes, len(cases)) <= 1:
        yield from ((case, guarded(case.path, partial(work, case))) for case in cases)
        return
    parallel = Parallel(min(processes, len(cases)), "loky", return_as="generator_unordered", max_nbytes=None)
    outcomes = parallel(delayed(_in_worker)(work, case, TRUSTED.get(), os.getpid()) for case in cases)
    try:
        for case_and_outcome in outcomes:  # noqa: UP028 - it is closed below
            yield case_and_outcome
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
    work: Callable[[OneCase], Result], case: OneCase, trusted: bool, parent: int
) -> tuple[OneCase, Result | str]:
    _settle(parent)
    TRUSTED.set(trusted)
    return case, guarded(case.path, partial(work, case))
