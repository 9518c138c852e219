"""SIGTERM and SIGHUP as Ctrl-C: what tidies up is run, too, when a scheduler or a closed terminal ends a command."""

from __future__ import annotations

import contextlib
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
