"""Does one thing to many cases, in processes that end with this one, and survives broken cases and dead processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar, cast

from nnunet_nacl.errors import UserError

__all__ = ["guarded", "run_in_workers", "stream_through_workers", "work_through"]

_DIED = (
    "the process that handled this case died, for lack of memory or over a damaged file; check both and run again, the "
    "finished cases are kept."
)

Item = TypeVar("Item")
Result = TypeVar("Result")


def work_through(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    path: Callable[[Item], Path],
    processes: int,
    title: str,
    total: int,
    progress: bool,
    *,
    here: Iterable[tuple[Item, Result | str]] | None = None,
) -> Iterator[tuple[Item, Result | str]]:
    """Call a function with each case, under a progress bar on stderr.

    Args:
        function: Can be pickled if there are processes.
        items: The cases; they can be pickled likewise.
        path: The largest file of a case, for the lines that say what is wrong with it.
        processes: Cases at the same time; 1 starts no process.
        title: Of the bar.
        total: Cases of the bar; those not in ``items`` count as done.
        progress: Show it.
        here: What to take the results from instead.

    Yields:
        Each case and its result, or the line that says why there is none.
    """
    from tqdm import tqdm

    processes, work = min(processes, len(items)), partial(_work_guarded, function, path)
    outcomes: Iterable[tuple[Item, Result | str | None]] = here or zip(items, map(work, items))
    if here is None and processes > 1:
        outcomes = run_in_workers(work, items, processes)
    silent = not (progress and items)
    with tqdm(total=total, initial=total - len(items), desc=title, unit="case", disable=silent) as bar:
        for item, outcome in outcomes:
            bar.update()
            yield item, f"{path(item)}: {_DIED}" if outcome is None else outcome


def _work_guarded(function: Callable[[Item], Result], path: Callable[[Item], Path], item: Item) -> Result | str:
    return guarded(path(item), partial(function, item))


def run_in_workers(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[tuple[Item, Result | None]]:
    """Call a function with each item, several at a time, each process with one thread of PyTorch.

    A worker that dies, for lack of memory perhaps, takes with it what the others had in hand. Those items are tried
    again one at a time: there is more memory then, and whoever dies now is named rightly.

    Args:
        function: Can be pickled, and does not raise: an exception ends the iteration.
        items: Can be pickled.
        processes: Number of workers. They end with this process, even if it is killed.

    Yields:
        Each item and its result, in the order in which they are finished; None where the worker died twice.
    """
    unfinished: list[Item] = yield from _run_in_pool(function, items, processes)
    for item in unfinished:
        if (yield from _run_in_pool(function, [item], 1)):
            yield item, None


def stream_through_workers(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int, *, ahead: int
) -> Iterator[tuple[Item, Result | None]]:
    """Call a function with each of a stream of items, which are made while others are worked on.

    An item is taken from the stream only when there is room for it, so memory does not grow with their number. Streams
    can be chained: what one yields is what the next one takes. However the iteration ends, its workers end with it.

    Args:
        function: Can be pickled, and does not raise: an exception ends the iteration.
        items: Can be pickled.
        processes: Number of workers; 0 calls the function here, one item after the other.
        ahead: Items that may wait for a worker.

    Yields:
        Each item and its result, in the order in which they are finished; None where the worker died twice.
    """
    if not processes:
        yield from ((item, function(item)) for item in items)
        return
    source, pending = iter(items), cast(dict[Future, Item], {})
    pool = _new_pool(processes, _start_quiet_worker)
    try:
        exhausted = False
        while not exhausted or pending:
            if not exhausted and len(pending) < processes + ahead:
                try:
                    item = next(source)
                except StopIteration:
                    exhausted = True
                else:
                    pending[_submit(pool, function, item)] = item
            full = exhausted or len(pending) >= processes + ahead
            done, _ = wait(pending, None if full else 0, FIRST_COMPLETED)
            if any(map(_is_lost, done)):
                done = set(pending)  # all that was in hand is lost
                _kill(pool)
                pool = _new_pool(processes, _start_quiet_worker)
            for future in done:
                item = pending.pop(future)
                if not _is_lost(future):
                    yield item, future.result()
                elif (yield from _run_in_pool(function, [item], 1)):
                    yield item, None
    finally:
        _kill(pool)


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item) -> Future:
    try:
        return pool.submit(function, item)
    except BrokenProcessPool as error:  # a worker died while none was waited for
        broken: Future = Future()
        broken.set_exception(error)
        return broken


def _is_lost(future: Future) -> bool:
    return not future.done() or future.cancelled() or isinstance(future.exception(), BrokenProcessPool)


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the workers, whatever they are doing: files get their names only when they are whole."""
    workers = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()


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
    except MemoryError:
        size = os.path.getsize(path) / 2**20
        return f"{path} ({size:.0f} MiB compressed): not enough memory; run with a smaller -np."
    except Exception as error:
        return f"{path}: unexpected {type(error).__name__}: {error}"


def _run_in_pool(function, items, processes) -> Generator[tuple[Item, Result], None, list[Item]]:
    """Yields what is finished; returns what a broken pool left."""
    unfinished: list[Item] = []
    with _new_pool(processes, _start_worker) as pool:
        futures = {pool.submit(function, item): item for item in items}
        try:
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool:
                    unfinished.append(futures[future])
                else:
                    yield futures[future], result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return unfinished


def _new_pool(processes: int, initializer: Callable[[], None]) -> ProcessPoolExecutor:
    context = get_context("spawn")  # as nnU-Net; PyTorch does not survive a fork
    return ProcessPoolExecutor(processes, mp_context=context, initializer=initializer)


def _start_quiet_worker() -> None:
    """For workers that this process kills when it is interrupted: a terminal interrupts them as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _start_worker()


def _start_worker() -> None:
    """Initialises a worker: one thread of PyTorch, and it ends with its parent."""

    def follow(parent) -> None:
        parent.join()
        os._exit(1)

    # a killed parent tells its workers nothing: they would wait for work for ever
    threading.Thread(target=follow, args=(parent_process(),), daemon=True).start()
    import torch

    torch.set_num_threads(1)
