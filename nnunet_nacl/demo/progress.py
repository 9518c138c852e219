"""One progress bar over everything that the demo still has to do, with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

_LINE_INTERVAL_S = 30.0


@dataclass
class Work:
    """A piece of work that is counted in equal units.

    Attributes:
        kind: Works of one kind share what is learned about their speed.
        units: How many units there are.
        guess_s: Expected seconds per unit, as long as nothing has been measured.
        done: Units done, of which `measured` were timed.
    """

    kind: str
    units: float
    guess_s: float
    done: float = 0.0
    measured: float = 0.0
    seconds: float = 0.0
    _since: float | None = field(default=None, repr=False)

    def start(self, now: float | None = None) -> None:
        """Begins the timing."""
        if self._since is None:
            self._since = time.monotonic() if now is None else now

    def reach(self, done: float, now: float | None = None) -> None:
        """Sets how many units are done; what was done before `start` is not timed."""
        done = min(done, self.units)
        if done <= self.done:
            return
        now = time.monotonic() if now is None else now
        if self._since is not None:
            self.measured += done - self.done
            self.seconds += now - self._since
        self._since = now
        self.done = done

    def skip(self, done: float) -> None:
        """Sets units as done earlier, by a run before this one."""
        self.done = min(max(self.done, done), self.units)

    def finish(self) -> None:
        """All done."""
        self.reach(self.units)


Job = list[Work]
"""Works one after the other."""


def remaining_seconds(waves: Sequence[Sequence[Job]]) -> float:
    """Expected seconds until all waves are done: jobs of a wave run side by side, waves one after the other."""
    measured: dict[str, list[float]] = {}
    for work in (work for wave in waves for job in wave for work in job):
        sums = measured.setdefault(work.kind, [0.0, 0.0])
        sums[0] += work.seconds
        sums[1] += work.measured * work.guess_s
    factor = {kind: seconds / guessed if guessed > 0 else 1.0 for kind, (seconds, guessed) in measured.items()}
    return sum(
        max(
            (sum((work.units - work.done) * work.guess_s * factor[work.kind] for work in job) for job in wave),
            default=0.0,
        )
        for wave in waves
    )


class ProgressBar:
    """Draws the bar; a context manager.

    Args:
        waves: The work; see `remaining_seconds`.
        show: Whether to draw at all; lines are written in any case.
    """

    def __init__(self, waves: Sequence[Sequence[Job]], show: bool = True):
        self._waves = waves
        self._begin = time.monotonic()
        self._what = ""
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
        """Names what is going on."""
        self._what = what
        self._bar.set_description_str(what, refresh=False)
        self.refresh()

    def refresh(self) -> None:
        """Draws the bar anew; where there is no terminal, writes a line every half minute."""
        if not self._show:
            return
        left = remaining_seconds(self._waves)
        spent = time.monotonic() - self._begin
        done = round(1000 * spent / (spent + left)) if spent + left > 0 else 1000
        if self._is_terminal:
            self._bar.postfix = [f"(about {_in_words(left)} left)"]
            self._bar.update(max(0, min(1000, done) - self._bar.n))
        elif spent >= self._next_line:
            self._next_line = spent + _LINE_INTERVAL_S
            print(
                f"  {done / 10:.0f} % after {_in_words(spent)}, about {_in_words(left)} left: {self._what}",
                file=sys.stderr,
                flush=True,
            )

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
