"""Processes that may be killed at any time without holding up the one that started them."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.resource_tracker import ensure_running
from queue import Empty, SimpleQueue
from typing import Any

from nnunet_nacl.cases.checkpoint_files import TRUSTED

LOST = object()
"""Stands for the result of an item whose worker died."""

CONTEXT: Any = get_context("spawn")  # as nnU-Net; PyTorch does not survive a fork
"""How processes are started."""

_STOP = object()


class WorkerPool:
    """Calls one function in several processes, each of which has a pipe and a thread of its own here.

    The pool of :mod:`concurrent.futures` has one pipe for all results. A worker that is killed while it writes to it,
    by the system for lack of memory or because the work is stopped, leaves half a result there, and the pool waits for
    the other half for ever. Here the pipe is closed with its only writer.

    Used as a context manager: the workers end with the block, and with this process, even if that is killed.

    Args:
        function: Can be pickled.
        num_processes: Number of workers. Each uses one thread of PyTorch.
        to_be_killed: However the block ends, kill the workers, whatever they are doing; they do not heed Ctrl-C, which
            a terminal sends them as well. Else they finish what they have in hand.
    """

    def __init__(self, function: Callable[[Any], Any], num_processes: int, *, to_be_killed: bool = False) -> None:
        self.num_processes = num_processes
        self.in_hand = 0  # items that were given and not taken
        self._function = function
        self._to_be_killed = to_be_killed
        self._todo: SimpleQueue = SimpleQueue()
        self._done: SimpleQueue = SimpleQueue()
        self._num_running = 0
        self._processes: list[Any] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        if sys.is_finalizing():  # of a traceback that Python kept: threads no longer run, workers are gone
            return
        with contextlib.suppress(Empty):
            while True:
                self._todo.get_nowait()
        self._todo.put(_STOP)
        if self._to_be_killed:
            for process in self._processes:
                process.kill()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.join()

    def of_one(self) -> WorkerPool:
        """A pool with one worker that does the same."""
        return WorkerPool(self._function, 1, to_be_killed=self._to_be_killed)

    @property
    def has_result(self) -> bool:
        """Whether :meth:`take` would not wait."""
        return not self._done.empty()

    def give(self, item: Any) -> None:
        """Have the function called with an item, which can be pickled.

        Raises:
            Exception: The function cannot be pickled, or the system gives no process or thread.
        """
        self.in_hand += 1
        self._todo.put(item)
        self._start_if_needed()

    def take(self) -> tuple[Any, Any]:
        """Wait for a result; it comes with its item, and is ``LOST`` where the worker died.

        Raises:
            Exception: What the function raised, or why the item cannot be pickled.
        """
        item, result, error = self._done.get()
        self.in_hand -= 1
        if error is not None:
            raise error
        if result is LOST:
            self._num_running -= 1
            self._start_if_needed()
        return item, result

    def _start_if_needed(self) -> None:
        if self._num_running >= min(self.num_processes, self.in_hand):
            return
        self._num_running += 1
        here, there = CONTEXT.Pipe()
        arguments = (there, pickle.dumps(self._function), self._to_be_killed, TRUSTED.get())
        process = CONTEXT.Process(target=_work, args=arguments, daemon=True)
        with _interrupts_held():
            process.start()
        there.close()  # the worker's is the only one, so that its death can be read from the pipe
        thread = threading.Thread(target=self._attend, args=(process, here), daemon=True)
        thread.start()
        self._processes.append(process)
        self._threads.append(thread)

    def _attend(self, process: Any, connection: Connection) -> None:
        with connection:
            is_ready = False
            while (item := self._todo.get()) is not _STOP:
                try:
                    is_ready = is_ready or _wait_for_start(process, connection)
                    connection.send(item)
                except (EOFError, OSError):
                    self._done.put((item, LOST, None))
                    return
                except Exception as unsent:  # cannot be pickled
                    self._done.put((item, None, unsent))
                    continue
                try:
                    result, error = connection.recv()
                except Exception:  # dead, or too large for the memory: what follows in the pipe cannot be read
                    self._done.put((item, LOST, None))
                    return
                self._done.put((item, result, error))
                del item, result, error  # else large ones stay until the next is done
        self._todo.put(_STOP)  # for the next thread


def _wait_for_start(process: Any, connection: Connection) -> bool:
    """Wait for the worker's greeting; EOFError if it died before. Under Windows its pipe would not tell until then."""
    wait([connection, process.sentinel])
    if not connection.poll():
        raise EOFError
    return bool(connection.recv())


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block; of a process that starts in it, until it allows it itself."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    ensure_running()  # else the first process starts this one before itself, which allows Ctrl-C again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, function: bytes, to_be_killed: bool, trusted: bool) -> None:
    TRUSTED.set(trusted)
    # until all is loaded Ctrl-C ends a worker without a traceback
    signal.signal(signal.SIGINT, signal.SIG_IGN if to_be_killed else signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # a process that was killed cannot end its workers
    threading.Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # the other end is closed, or Ctrl-C
        called = pickle.loads(function)
        if not to_be_killed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        connection.send(True)
        while True:
            connection.send(_outcome(called, connection.recv()))


def _outcome(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    try:
        return function(item), None
    except Exception as error:
        return None, error


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
