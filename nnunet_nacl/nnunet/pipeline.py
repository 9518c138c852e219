"""Works on cases in parallel processes; a case that fails or is killed costs itself alone.

Each process has a pipe to itself, so that the case of one that is killed is known.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar, cast

from nnunet_nacl.nnunet.trust import TRUSTED
from nnunet_nacl.utilities.errors import Failed, UserError, describe

CONTEXT = get_context("spawn")  # as nnU-Net; PyTorch does not survive a fork
"""How processes are started."""

_Value = TypeVar("_Value")
_Result = TypeVar("_Result")

_KILLED = "the process that worked on it was killed, for lack of memory or over a damaged file"


def side_by_side(
    step: Callable[[str, None], _Result],
    cases: Sequence[str],
    processes: int,
    path_of: Callable[[str], Path],
) -> Generator[tuple[str, _Result | Failed], None, None]:
    """Each case and what a step makes of its name alone, as :func:`through`.

    One process is this one.
    """
    n_useful = min(processes, len(cases))
    n_started = n_useful if n_useful > 1 else 0
    return through(step, ((case, None) for case in cases), n_started, path_of)


def through(
    step: Callable[[str, _Value], _Result],
    items: Iterable[tuple[str, _Value | Failed]],
    processes: int,
    path_of: Callable[[str], Path],
) -> Generator[tuple[str, _Result | Failed], None, None]:
    """Each case and what a step makes of it, or why that failed, in the order in which they end.

    A case is taken only when there is room, so memory does not grow with the number of cases: each
    worker holds one, and this process holds one that waits for the next idle worker. However the
    iteration, or this process, ends, the workers end with it.

    Args:
        step: What is made of a case, given its name and what the step before made of it. Where
            processes are started, it and its results can be pickled.
        items: The name of each case and what the step before made of it; where that failed, this is
            passed on.
        processes: How many are started; 0 works in this one.
        path_of: The largest file of a case, for messages; it can be pickled, too.
    """
    if not processes:
        for case, value in items:
            outcome = value if isinstance(value, Failed) else _do_step(step, path_of, case, value)
            # Cases are large. Without `del`, this one would be kept until the next one is made.
            del value
            yield case, outcome
            del outcome
        return
    source = iter(items)
    has_more = True
    waiting: deque[tuple[str, _Value]] = deque()
    finished: deque[tuple[str, _Result | Failed]] = deque()
    workers = _Workers(step, path_of)
    try:
        while True:
            while waiting and workers.num_busy < processes:
                workers.send(waiting.popleft())
            # one case more than there are workers is taken, so that none of them has to wait
            has_room = has_more and workers.num_busy + len(waiting) <= processes
            finished.extend(workers.receive(is_waiting=not has_room and not finished))
            if finished:  # before more is asked for, which may take long
                yield finished.popleft()
            elif has_room:
                item = next(source, None)
                if item is None:
                    has_more = False
                else:
                    case, value = item
                    if isinstance(value, Failed):
                        finished.append((case, value))
                    else:
                        waiting.append((case, value))
                    del value
                del item  # as above
            elif not workers.num_busy:
                return
    finally:
        workers.end()


class _Workers(Generic[_Value, _Result]):
    """Processes that do a step, one case at a time; each is started when all others are busy.

    Args:
        step: What they do.
        path_of: The largest file of a case, for messages.
    """

    def __init__(
        self, step: Callable[[str, _Value], _Result], path_of: Callable[[str], Path]
    ) -> None:
        self._step = step
        self._path_of = path_of
        self._processes: dict[Connection, BaseProcess] = {}
        self._idle: list[Connection] = []
        self._case_of_busy: dict[Connection, str] = {}

    @property
    def num_busy(self) -> int:
        """How many work on a case."""
        return len(self._case_of_busy)

    def send(self, item: tuple[str, _Value]) -> None:
        """Give a case to an idle worker, or to a new one."""
        pipe = self._idle.pop() if self._idle else self._start()
        case, _ = item
        self._case_of_busy[pipe] = case
        with contextlib.suppress(OSError):  # it is dead, which `receive` finds
            pipe.send(item)

    def _start(self) -> Connection:
        """The pipe to a new worker."""
        pipe, pipe_of_worker = CONTEXT.Pipe()
        pickled = pickle.dumps((self._step, self._path_of))
        process = CONTEXT.Process(
            target=_work, args=(pipe_of_worker, pickled, TRUSTED.get()), daemon=True
        )
        self._processes[pipe] = process
        process.start()
        # the worker's is the only copy, so that its death can be read from the pipe
        pipe_of_worker.close()
        return pipe

    def receive(self, *, is_waiting: bool) -> list[tuple[str, _Result | Failed]]:
        """Each case that has ended, with its result.

        Args:
            is_waiting: Wait until one has, if any worker is busy.
        """
        if not self._case_of_busy:
            return []
        timeout = None if is_waiting else 0
        results = []
        ready = cast("list[Connection]", wait(list(self._case_of_busy), timeout))
        for pipe in ready:
            results.append(self._receive_from(pipe))
        return results

    def _receive_from(self, pipe: Connection) -> tuple[str, _Result | Failed]:
        """The case of a worker that has ended it, or is dead, and its result."""
        case = self._case_of_busy.pop(pipe)
        try:
            result = pipe.recv()
        except Exception:
            # dead, or too large for the memory: what follows in the pipe cannot be read
            self._processes[pipe].kill()
            reason = f"{self._path_of(case)}: {_KILLED}; run again with fewer processes."
            return case, Failed(case, reason)
        self._idle.append(pipe)
        return case, result

    def end(self) -> None:
        """Kill all of them."""
        for pipe, process in self._processes.items():
            process.kill()
            process.join()
            pipe.close()


def _work(pipe: Connection, pickled: bytes, is_trusting: bool) -> None:
    """A worker: one thread of PyTorch; no Ctrl-C, which its parent heeds.

    It ends when the pipe is closed.
    """
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
    torch.set_num_threads(1)
    TRUSTED.set(is_trusting)
    step, path_of = pickle.loads(pickled)
    with contextlib.suppress(EOFError, OSError):  # the other end is closed
        while True:
            pipe.send(_do_step(step, path_of, *pipe.recv()))  # no name keeps either


def _do_step(
    step: Callable[[str, _Value], _Result],
    path_of: Callable[[str], Path],
    case: str,
    value: _Value,
) -> _Result | Failed:
    """What a step makes of a case; where it raises an error why, with a file of the case."""
    try:
        return step(case, value)
    except UserError as error:
        reason: str = error.message
    except OSError as error:
        reason = describe(error, path_of(case))
    except MemoryError:
        reason = f"{path_of(case)}: not enough memory; run with fewer processes."
    except Exception as error:  # of a reader, a network or a bug: it costs this case alone
        reason = f"{path_of(case)}: unexpected {type(error).__name__}: {error}"
    return Failed(case, reason)
