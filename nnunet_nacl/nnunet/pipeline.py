"""Cases through three steps at once: worker processes read, this process runs networks, others export.

Each worker has a pipe of its own, which is closed with its only writer: if it is killed, the one case that is lost is
known. In pools, such as those of joblib, all share one: all cases fail without a word which of them it was, and if it
was killed while it answered, the pool may wait for the other half for ever.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from nnunet_nacl.nnunet.trust import TRUSTED
from nnunet_nacl.runs.side_by_side import Task, guarded

CONTEXT: Any = get_context("spawn")  # as nnU-Net; PyTorch does not survive a fork
"""How processes are started."""

OneCase = TypeVar("OneCase", bound=Task)
Step = Callable[[OneCase, Any], Any]  # what is made of a case and of what the step before gave


def pipeline(
    cases: Iterable[OneCase],
    read: Callable[[OneCase], Any],
    predict: Step[OneCase],
    export: Step[OneCase],
    *,
    readers: int,
    exporters: int,
) -> Generator[tuple[OneCase, Any], None, None]:
    """Take cases through three steps; a broken case, or one whose process is killed, costs only itself.

    A case is taken only when there is room for it, so memory does not grow with their number: each worker holds one,
    and this process one behind each step. However the iteration ends, the workers are killed with it; if this process
    is killed, they end with the case that they are at.

    Args:
        cases: Can be pickled, as what the steps but ``predict`` are and give.
        read: Of a case what the network is given.
        predict: What the network makes of that; called in this process.
        export: What is kept of that.
        readers: Processes that read; 0 reads here.
        exporters: Processes that export; 0 exports here.

    Yields:
        Each case and what ``export`` gave, or the line that says what went wrong, in the order in which they finish.
    """
    prepared = _through(partial(_first, read), ((case, None) for case in cases), readers, "read")
    answered = _through(predict, prepared, 0)
    yield from _through(export, answered, exporters, "exported")


def _first(read: Callable[[OneCase], Any], case: OneCase, nothing: None) -> Any:
    return read(case)


def _through(
    step: Step[OneCase], items: Iterable[tuple[OneCase, Any]], processes: int, did: str = ""
) -> Generator[tuple[OneCase, Any], None, None]:
    """Cases and what a step makes of each, or the line that a step before left."""
    if not processes:
        for case, value in items:
            if not isinstance(value, str):
                value = _guarded(step, case, value)
            yield case, value
            del value  # it is large, and the next is made before it would be replaced
        return
    source, more = iter(items), True
    waiting, finished = deque[tuple[OneCase, Any]](), deque[tuple[OneCase, Any]]()
    workers: dict[Connection, Any] = {}
    idle: list[Connection] = []
    busy: dict[Connection, OneCase] = {}
    try:
        while True:
            while waiting and len(busy) < processes:
                pipe = idle.pop() if idle else _start(step, workers)
                busy[pipe] = waiting[0][0]
                with contextlib.suppress(OSError):  # it is dead, which is found below
                    pipe.send(waiting.popleft())
            room = more and len(busy) + len(waiting) <= processes
            ready: Any = wait(list(busy), 0 if room or finished else None) if busy else ()
            for pipe in ready:
                case = busy.pop(pipe)
                try:
                    finished.append((case, pipe.recv()))
                    idle.append(pipe)
                except Exception:  # dead, or too large for the memory: what follows in the pipe cannot be read
                    workers[pipe].kill()
                    why = f"the process that {did} it was killed, for lack of memory or over a damaged file"
                    finished.append((case, f"{case.path}: {why}; run again with fewer processes."))
            if finished:  # before more is asked for, which may take long
                yield finished.popleft()
            elif room:
                item = next(source, None)
                if more := item is not None:
                    (finished if isinstance(item[1], str) else waiting).append(item)
                del item
            elif not busy:
                return
    finally:
        for pipe, process in workers.items():
            process.kill()
            process.join()
            pipe.close()


def _start(step: Step[OneCase], workers: dict[Connection, Any]) -> Connection:
    here, there = CONTEXT.Pipe()
    arguments = there, pickle.dumps(step), TRUSTED.get()
    workers[here] = CONTEXT.Process(target=_work, args=arguments, daemon=True)
    workers[here].start()
    there.close()  # the worker's is the only one, so that its death can be read from the pipe
    return here


def _work(pipe: Connection, pickled: bytes, trusted: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
    TRUSTED.set(trusted)
    import torch

    torch.set_num_threads(1)
    step = pickle.loads(pickled)
    with contextlib.suppress(EOFError, OSError):  # the other end is closed
        while True:
            pipe.send(_guarded(step, *pipe.recv()))  # no name keeps either


def _guarded(step: Step[OneCase], case: OneCase, value: Any) -> Any:
    return guarded(case.path, partial(step, case, value))
