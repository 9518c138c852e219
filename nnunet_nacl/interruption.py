"""SIGTERM and SIGHUP as Ctrl-C: what tidies up is run, too, when a scheduler or a closed terminal ends a command."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt within, with their number, so that what tidies up is run.

    One that is ignored, as by ``nohup``, stays so.
    """
    previous = {}
    try:
        for number in _TERMINATIONS:
            with contextlib.suppress(ValueError):  # not in the main thread: signals are not ours to handle
                if signal.getsignal(number) is not signal.SIG_IGN:
                    previous[number] = signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_TERMINATIONS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def _end_as_usual() -> None:
    """In a worker that was forked within: Python's handlers wait for its next step, and it may wait for a lock."""
    for number in _TERMINATIONS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_as_usual)
