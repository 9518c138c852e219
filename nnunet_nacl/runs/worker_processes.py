"""Does one thing to many cases, in processes that end with this one, and survives broken cases and dead processes.

Each process has a pipe of its own, and a thread here that waits for its answers. The pools of :mod:`concurrent.futures`
and of loky have one pipe for the results of all: if a process is killed, by the system for lack of memory perhaps, all
items fail without a word which of them it was, and if it was killed while it answered, the pool waits for the other
half for ever. Here the pipe is closed with its only writer, and one item is lost, which is known.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any, Protocol, TypeVar

from nnunet_nacl.errors import UserError, describe
from nnunet_nacl.io.checkpoint_files import TRUSTED

CONTEXT: Any = get_context("spawn")  # as nnU-Net; PyTorch does not survive a fork
"""How processes are started."""

_LOST = object()  # in place of the result of an item whose process died


class Task(Protocol):
    """What is to be done to one case; can be pickled."""

    @property
    def case(self) -> str:
        """Name of the case."""

    @property
    def path(self) -> Path:
        """Its largest file, for the lines that say what is wrong with it."""


Item = TypeVar("Item")
OneCase = TypeVar("OneCase", bound=Task)
Result = TypeVar("Result")


def each_case(
    work: Callable[[OneCase], Result], cases: Sequence[OneCase], processes: int = 1
) -> Generator[tuple[OneCase, Result | str | None], None, None]:
    """Call a function with each case.

    Args:
        work: Handles one case; can be pickled if there are processes.
        cases: The cases.
        processes: Cases at the same time; 1 starts no process.

    Yields:
        Each case and its result, or the line that says why there is none; None where its process died twice.
    """
    several = min(processes, len(cases)) > 1
    return stream_through_workers(partial(guarded_case, work), cases, processes if several else 0)


def guarded_case(work: Callable[[OneCase], Result], case: OneCase) -> Result | str:
    """The result of ``work`` of a case, or the line that says why there is none."""
    return guarded(case.path, partial(work, case))


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


def stream_through_workers(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    processes: int,
    *,
    ahead: int = 1,
) -> Generator[tuple[Item, Result | None], None, None]:
    """Call a function with each of a stream of items, which are made while others are worked on.

    An item is taken from the stream only when there is room for it, so memory does not grow with their number. Streams
    can be chained: what one yields is what the next one takes. However the iteration ends, its workers are killed with
    it, and end with this process, even if that is killed; they do not heed Ctrl-C, which a terminal sends to them as
    well. A worker that dies, for lack of memory perhaps, takes its item with it. That is tried again when no other is
    in hand: there is more memory then.

    Args:
        function: Can be pickled, and does not raise: a worker would die of it.
        items: Can be pickled.
        processes: Number of workers, each with one thread of PyTorch; 0 calls the function here, one item after the
            other.
        ahead: Items that may wait for a worker.

    Yields:
        Each item and its result, in the order in which they are finished; None where the worker died twice.
    """
    if not processes:
        for item in items:
            yield item, function(item)
        return
    source = iter(items)
    lost: list[Item] = []
    in_hand: dict[Future, Item] = {}
    workers = _Workers(function, processes)
    try:
        while True:
            while not lost and len(in_hand) < processes + ahead and not any(future.done() for future in in_hand):
                try:
                    item = next(source)
                except StopIteration:
                    break
                in_hand[workers.submit(item)] = item
            if alone := bool(lost and not in_hand):
                item = lost.pop()
                in_hand[workers.submit(item, fresh=True)] = item
            if not in_hand:
                return
            future = wait_for(in_hand, return_when=FIRST_COMPLETED).done.pop()
            item, result = in_hand.pop(future), future.result()
            del future
            if result is _LOST and not alone:
                lost.append(item)
            else:
                yield item, None if result is _LOST else result
    finally:
        workers.close()


class _Workers:
    """Threads, and processes that call one function, started when there is no idle one; see above."""

    def __init__(self, function: Callable[[Any], Any], number: int) -> None:
        self._arguments = pickle.dumps(function), TRUSTED.get()
        self._threads = ThreadPoolExecutor(number, initializer=_block_interrupts)
        self._all: list[tuple[Any, Connection]] = []
        self._idle: list[Connection] = []
        self._starting, self._closed = threading.Lock(), False

    def submit(self, item: Any, *, fresh: bool = False) -> Future:
        """Have an item worked on; ``_LOST`` comes of it where its process dies.

        Args:
            item: Can be pickled, or the result is the error that it cannot.
            fresh: Start a process for it, which is known to live.
        """
        return self._threads.submit(self._call, item, fresh)

    def close(self) -> None:
        """Kill all processes."""
        with self._starting:
            self._closed = True
            for process, _ in self._all:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process, connection in self._all:
            connection.close()
            process.join()

    def _call(self, item: Any, fresh: bool) -> Any:
        idle = None
        with contextlib.suppress(IndexError):
            idle = None if fresh else self._idle.pop()
        try:
            connection = idle or self._start()
            connection.send(item)
        except (EOFError, ConnectionError):
            return _LOST
        try:
            result = connection.recv()
        except Exception:  # dead, or too large for the memory: what follows in the pipe cannot be read
            connection.close()
            return _LOST
        self._idle.append(connection)
        return result

    def _start(self) -> Connection:
        here, there = CONTEXT.Pipe()
        with self._starting:
            if self._closed:
                raise EOFError
            process = CONTEXT.Process(target=_work, args=(there, *self._arguments), daemon=True)
            process.start()
            self._all.append((process, here))
        there.close()  # the worker's is the only one, so that its death can be read from the pipe
        wait([here, process.sentinel])  # under Windows the pipe alone would not tell
        if not here.poll():
            raise EOFError
        here.recv()
        return here


def _block_interrupts() -> None:
    """Ctrl-C is not for this thread, nor for a process that it starts."""
    if hasattr(signal, "pthread_sigmask"):  # not Windows
        ensure_running()  # else the first process starts this one before itself, which allows Ctrl-C again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _work(connection: Connection, function: bytes, trusted: bool) -> None:
    TRUSTED.set(trusted)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a process that was killed cannot end its workers
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):  # the other end is closed
        called = pickle.loads(function)
        connection.send(True)
        while True:
            connection.send(called(connection.recv()))  # no name keeps either


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
