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
from operator import attrgetter
from pathlib import Path
from typing import Any

from nnunet_nacl.nnunet.records import guarded
from nnunet_nacl.nnunet.trust import TRUSTED

CONTEXT: Any = get_context("spawn")  # as nnU-Net; PyTorch does not survive a fork
"""How processes are started."""

Step = Callable[[Any, Any], Any]
"""What is made of a case, given its name and what the step before gave."""


def pipeline(
    names: Iterable[Any],
    read: Callable[[Any], Any],
    predict: Step,
    export: Step,
    *,
    readers: int,
    exporters: int,
    path_of: Callable[[Any], Path] = attrgetter("path"),
) -> Generator[tuple[Any, Any], None, None]:
    """Take cases through three steps; a broken case, or one whose process is killed, costs only itself.

    A case is taken only when there is room for it, so memory does not grow with their number: each worker holds one,
    and this process one behind each step. However the iteration ends, the workers are killed with it; if this process
    is killed, they end with the case that they are at.

    Args:
        names: Of the cases.
        read: Of a case what the network is given; can be pickled, as its result.
        predict: What the network makes of that; called in this process.
        export: What is kept of that.
        readers: Processes that read; 0 reads here.
        exporters: Processes that export; 0 exports here.
        path_of: The largest file of a case, for messages; can be pickled.

    Yields:
        Each case and what ``export`` gave, or the line that says what went wrong, in the order in which they finish.
    """
    prepared = _through(partial(_first, read), ((name, None) for name in names), readers, path_of, "read")
    answered = _through(predict, prepared, 0, path_of)
    yield from _through(export, answered, exporters, path_of, "exported")


def _first(read: Callable[[Any], Any], name: Any, nothing: None) -> Any:
    return read(name)


def _through(
    step: Step, items: Iterable[tuple[Any, Any]], processes: int, path_of: Callable[[Any], Path], did: str = ""
) -> Generator[tuple[Any, Any], None, None]:
    """Cases and what a step makes of each, or the line that a step before left."""
    if not processes:
        for case, value in items:
            if not isinstance(value, str):
                value = _guarded(step, path_of, case, value)
            yield case, value
            del value  # it is large, and the next is made before it would be replaced
        return
    source, more = iter(items), True
    waiting, finished = deque[tuple[Any, Any]](), deque[tuple[Any, Any]]()
    workers, idle, busy = dict[Connection, Any](), list[Connection](), dict[Connection, Any]()
    try:
        while True:
            while waiting and len(busy) < processes:
                pipe = idle.pop() if idle else _start(step, path_of, workers)
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
                    finished.append((case, f"{path_of(case)}: {why}; run again with fewer processes."))
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


def _start(step: Step, path_of: Callable[[Any], Path], workers: dict[Connection, Any]) -> Connection:
    here, there = CONTEXT.Pipe()
    arguments = there, pickle.dumps((step, path_of)), TRUSTED.get()
    workers[here] = CONTEXT.Process(target=_work, args=arguments, daemon=True)
    workers[here].start()
    there.close()  # the worker's is the only one, so that its death can be read from the pipe
    return here


def _work(pipe: Connection, pickled: bytes, trusted: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
    TRUSTED.set(trusted)
    import torch

    torch.set_num_threads(1)
    step, path_of = pickle.loads(pickled)
    with contextlib.suppress(EOFError, OSError):  # the other end is closed
        while True:
            pipe.send(_guarded(step, path_of, *pipe.recv()))  # no name keeps either


def _guarded(step: Step, path_of: Callable[[Any], Path], name: Any, value: Any) -> Any:
    return guarded(path_of(name), partial(step, name, value))
