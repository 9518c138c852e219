"""Does one thing to many cases, in processes that end with this one, and survives broken cases and dead processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from nnunet_nacl.cases.worker_pool import LOST, WorkerPool
from nnunet_nacl.errors import UserError

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

    A worker that dies, for lack of memory perhaps, takes its item with it. That is tried again when no other is in
    hand: there is more memory then.

    Args:
        function: Can be pickled, and does not raise: an exception ends the iteration.
        items: Can be pickled.
        processes: Number of workers. They end with this process, even if it is killed; if the iteration is left, they
            finish what they have in hand.

    Yields:
        Each item and its result, in the order in which they are finished; None where the worker died twice.
    """
    return _stream(WorkerPool(function, min(processes, len(items))), items, ahead=1)


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
        return ((item, function(item)) for item in items)
    return _stream(WorkerPool(function, processes, to_be_killed=True), items, ahead)


def _stream(pool: WorkerPool, items: Iterable[Item], ahead: int) -> Iterator[tuple[Item, Result | None]]:
    source, most, none_left = iter(items), pool.num_processes + ahead, object()
    lost: list[Item] = []
    with pool:
        while True:
            while not lost and pool.in_hand < most and not pool.has_result:
                if (item := next(source, none_left)) is none_left:
                    break
                pool.give(item)
            if pool.in_hand:
                item, result = pool.take()
                if result is LOST:
                    lost.append(item)
                else:
                    yield item, result
            elif lost:
                with pool.of_one() as alone:  # whose worker is known to live
                    alone.give(lost.pop())
                    item, result = alone.take()
                yield item, None if result is LOST else result
            else:
                return


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
        size = f" ({path.stat().st_size / 2**20:.0f} MiB compressed)" if path.is_file() else ""
        return f"{path}{size}: not enough memory; run with a smaller -np."
    except Exception as error:
        return f"{path}: unexpected {type(error).__name__}: {error}"
