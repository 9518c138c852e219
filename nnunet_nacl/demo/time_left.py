"""One progress bar over everything that the demo still has to do, with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

_LINE_INTERVAL_S = 30.0
_ENOUGH_S = 5.0  # of expected work: before that much is done, its speed says little


@dataclass
class Work:
    """A piece of work that is counted in equal units.

    Attributes:
        units: How many units there are.
        guess_s: Expected seconds per unit on an ordinary computer.
        done: Units done.
        skipped: Those of them that an earlier run has done.
    """

    units: float
    guess_s: float
    done: float = 0.0
    skipped: float = 0.0

    def reach(self, done: float) -> None:
        """Sets how many units are done; it never goes back."""
        self.done = min(max(self.done, done), self.units)

    def skip(self, done: float | None = None) -> None:
        """Sets how many units (default: all that are left) an earlier run has done."""
        before = self.done
        self.reach(self.units if done is None else done)
        self.skipped += self.done - before

    def finish(self) -> None:
        """All done."""
        self.reach(self.units)


Job = list[Work]
"""Works one after the other."""

Waves = Sequence[Sequence[Job]]
"""Jobs of a wave run side by side, waves one after the other."""


def remaining_seconds(waves: Waves, elapsed_s: float = 0.0) -> float:
    """Expected seconds until all waves are done: the guesses, scaled by how fast this run has been so far."""
    left = _seconds(waves, lambda work: work.units - work.done)
    worked = _seconds(waves, lambda work: work.units - work.skipped) - left
    return left * (elapsed_s / worked if worked >= _ENOUGH_S else 1.0)


def _seconds(waves: Waves, units: Callable[[Work], float]) -> float:
    return sum(max((sum(units(work) * work.guess_s for work in job) for job in wave), default=0.0) for wave in waves)


class ProgressBar:
    """Draws the bar; a context manager. Where there is no terminal, it writes a line every half minute.

    Args:
        waves: The work.
        show: Whether to draw at all; lines are written in any case.
    """

    def __init__(self, waves: Waves, show: bool = True):
        self._waves = waves
        self._begin = time.monotonic()
        self._show = show
        self._is_terminal = sys.stderr.isatty()
        self._next_line = 0.0
        self._bar = tqdm(
            total=1000,
            disable=not (show and self._is_terminal),
            miniters=0,
            leave=False,
            file=sys.stderr,
            bar_format="{percentage:3.0f}% |{bar}| {elapsed} {postfix[0]} {desc}",
            postfix=["..."],
            dynamic_ncols=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self._bar.close()

    def describe(self, what: str) -> None:
        """Draws the bar anew, with what is going on."""
        if not self._show:
            return
        spent = time.monotonic() - self._begin
        left = remaining_seconds(self._waves, spent)
        done = round(1000 * spent / (spent + left)) if spent + left > 0 else 1000
        if self._is_terminal:
            self._bar.set_description_str(what, refresh=False)
            self._bar.postfix = [f"(about {_in_words(left)} left)"]
            self._bar.update(max(0, min(1000, done) - self._bar.n))
        elif spent >= self._next_line:
            self._next_line = spent + _LINE_INTERVAL_S
            line = f"  {done / 10:.0f} % after {_in_words(spent)}, about {_in_words(left)} left: {what}"
            print(line, file=sys.stderr, flush=True)

    def write(self, text: str) -> None:
        """Writes lines to standard output, above the bar."""
        with tqdm.external_write_mode(file=sys.stdout):
            print(text, flush=True)


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{5 * max(1, round(seconds / 5))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
