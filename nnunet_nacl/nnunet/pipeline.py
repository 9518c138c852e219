"""Works on cases in parallel processes; if one case fails or its process is killed, the others go
on.

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
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import Failed, UserError, describe
from nnunet_nacl.nnunet.trust import TRUSTED

CONTEXT: Any = get_context("spawn")  # as nnU-Net; PyTorch does not survive a fork
"""How processes are started."""

Step = Callable[[Any, Any], Any]
"""What is made of a case, given its name and what the step before gave."""


def side_by_side(
    step: Step, cases: Sequence[str], processes: int, path_of: Callable[[str], Path]
) -> Generator[tuple[str, Any], None, None]:
    """Each case and what a step makes of its name alone, as :func:`through`; one process is this
    one."""
    several = min(processes, len(cases))
    return through(step, ((case, None) for case in cases), several * (several > 1), path_of)


def through(
    step: Step, items: Iterable[tuple[Any, Any]], processes: int, path_of: Callable[[Any], Path]
) -> Generator[tuple[Any, Any], None, None]:
    """Each case and what a step makes of it, or :class:`Failed`, in the order in which they are
    finished.

    A case is taken only when there is room, so memory does not grow with their number: each worker
    holds one, and this process one behind each step. However the iteration, or this process, ends,
    the workers end with it.

    ``items`` are the name of each case and what the step before made of it; where that failed, this
    is passed on. Where ``processes`` are started (0 works in this one), ``step`` and its results
    can be pickled, as ``path_of``, which gives the largest file of a case for messages.
    """
    if not processes:
        for case, value in items:
            if not isinstance(value, Failed):
                value = _made(step, path_of, case, value)
            yield case, value
            del value  # it is large, and the next is made before it would be replaced
        return
    source, more = iter(items), True
    waiting, finished = deque[tuple[Any, Any]](), deque[tuple[Any, Any]]()
    workers, idle, busy = dict[Connection, Any](), list[Connection](), dict[Connection, Any]()
    try:
        while True:
            while waiting and len(busy) < processes:
                if not idle:
                    pipe, of_worker = CONTEXT.Pipe()
                    arguments = of_worker, pickle.dumps((step, path_of)), TRUSTED.get()
                    workers[pipe] = CONTEXT.Process(target=_work, args=arguments, daemon=True)
                    workers[pipe].start()
                    # the worker's is the only copy, so that its death can be read from the pipe
                    of_worker.close()
                    idle.append(pipe)
                pipe = idle.pop()
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
                except Exception:
                    # dead, or too large for the memory: what follows in the pipe cannot be read
                    workers[pipe].kill()
                    why = (
                        "the process that worked on it was killed, for lack of memory or over a"
                        " damaged file"
                    )
                    reason = f"{path_of(case)}: {why}; run again with fewer processes."
                    finished.append((case, Failed(case, reason)))
            if finished:  # before more is asked for, which may take long
                yield finished.popleft()
            elif room:
                item = next(source, None)
                if more := item is not None:
                    if isinstance(item[1], Failed):
                        finished.append(item)
                    else:
                        waiting.append(item)
                del item
            elif not busy:
                return
    finally:
        for pipe, process in workers.items():
            process.kill()
            process.join()
            pipe.close()


def _work(pipe: Connection, pickled: bytes, trusted: bool) -> None:
    """A worker: one thread of PyTorch; no Ctrl-C, which its parent heeds; it ends when the pipe is
    closed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes
    torch.set_num_threads(1)
    TRUSTED.set(trusted)
    step, path_of = pickle.loads(pickled)
    with contextlib.suppress(EOFError, OSError):  # the other end is closed
        while True:
            pipe.send(_made(step, path_of, *pipe.recv()))  # no name keeps either


def _made(step: Step, path_of: Callable[[Any], Path], name: Any, value: Any) -> Any:
    """What a step makes of a case; :class:`Failed`, whose reason names a file of it, where it
    raises an error."""
    try:
        return step(name, value)
    except UserError as error:
        reason = str(error)
    except OSError as error:
        reason = describe(error, path_of(name))
    except MemoryError:
        reason = f"{path_of(name)}: not enough memory; run with fewer processes."
    except Exception as error:  # of a reader, a network or a bug: it costs this case alone
        reason = f"{path_of(name)}: unexpected {type(error).__name__}: {error}"
    return Failed(name, reason)
