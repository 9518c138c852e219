"""Does one thing to many cases, in processes that end with this one, and survives broken cases and dead processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from nnunet_nacl.cases.worker_pool import LOST, WorkerPool
from nnunet_nacl.errors import UserError, describe


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
) -> Iterator[tuple[OneCase, Result | str | None]]:
    """Call a function with each case.

    Args:
        work: Handles one case; can be pickled if there are processes.
        cases: The cases.
        processes: Cases at the same time; 1 starts no process. If the iteration is left, they finish what they have in
            hand.

    Yields:
        Each case and its result, or the line that says why there is none; None where its process died twice.
    """
    several = min(processes, len(cases)) > 1
    one = partial(_work_guarded, work)
    return stream_through_workers(one, cases, processes if several else 0, to_be_killed=False)


def _work_guarded(work: Callable[[OneCase], Result], case: OneCase) -> Result | str:
    return guarded(case.path, partial(work, case))


def stream_through_workers(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    processes: int,
    *,
    ahead: int = 1,
    to_be_killed: bool = True,
) -> Iterator[tuple[Item, Result | None]]:
    """Call a function with each of a stream of items, which are made while others are worked on.

    An item is taken from the stream only when there is room for it, so memory does not grow with their number. Streams
    can be chained: what one yields is what the next one takes. However the iteration ends, its workers end with it, and
    with this process, even if that is killed. A worker that dies, for lack of memory perhaps, takes its item with it.
    That is tried again when no other is in hand: there is more memory then.

    Args:
        function: Can be pickled, and does not raise: an exception ends the iteration.
        items: Can be pickled.
        processes: Number of workers, each with one thread of PyTorch; 0 calls the function here, one item after the
            other.
        ahead: Items that may wait for a worker.
        to_be_killed: If the iteration is left, kill the workers; else they finish what they have in hand.

    Yields:
        Each item and its result, in the order in which they are finished; None where the worker died twice.
    """
    if not processes:
        return ((item, function(item)) for item in items)
    return _stream(WorkerPool(function, processes, to_be_killed=to_be_killed), items, ahead)


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
    except OSError as error:
        return describe(error, path)
    except MemoryError:
        size = f" ({path.stat().st_size / 2**20:.0f} MiB compressed)" if path.is_file() else ""
        return f"{path}{size}: not enough memory; run with a smaller -np."
    except Exception as error:
        return f"{path}: unexpected {type(error).__name__}: {error}"
