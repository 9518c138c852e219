"""The one loop over cases: what the ledger knows is not done again, a broken case costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nnunet_nacl.errors import UserError, describe, one_line
from nnunet_nacl.runs.ledger import SIGNATURE, Ledger
from nnunet_nacl.runs.side_by_side import Task

Item = TypeVar("Item", bound=Task)
Result = TypeVar("Result")


def run(
    items: Sequence[Item],
    work_through: Callable[[Sequence[Item]], Iterable[tuple[Item, Result | str]]],
    ledger: Ledger,
    *,
    sign: Callable[[Item, Any], dict[str, Any]],
    restore: Callable[[Item, dict[str, Any]], Result | None],
    entry_of: Callable[[Result], Mapping[str, Any]],
    signed: Callable[[Result, dict[str, Any]], Result] = lambda result, signature: result,
    written: Callable[[Item, Result], Iterable[Path]] = lambda item, result: (),
    output: Path | None = None,
    title: str = "",
    progress: bool = False,
    again: bool = False,
) -> tuple[dict[str, Result], dict[str, str]]:
    """Do one thing to many cases.

    Args:
        items: The cases.
        work_through: Gives the results of those that must be done, if there are any, such as
            :func:`~nnunet_nacl.runs.side_by_side.each_case`: a line where something is wrong.
        ledger: Of what earlier runs finished. Each case is entered as soon as it is finished.
        sign: What the result of a case depends on, given the earlier signature; OSError if a file cannot be read.
        restore: The result in a ledger's entry, or None where this version cannot use it.
        entry_of: JSON values of a result, for the ledger.
        signed: Puts its signature into a new result.
        written: Files of a finished case, in ``output``.
        output: The folder of what is written; None where nothing is.
        title: Of the progress bar.
        progress: Show it on stderr.
        again: Do all cases, whatever the ledger knows.

    Returns:
        Results and problems by case, both in alphabetic order.
    """
    from tqdm import tqdm

    results: dict[str, Result] = {}
    problems: dict[str, str] = {}
    signatures: dict[str, dict[str, Any]] = {}
    todo = []
    for item in items:
        try:
            signatures[item.case] = now = sign(item, ledger.entry(item.case).get(SIGNATURE))
        except OSError as error:
            problems[item.case] = describe(error, item.path)
            continue
        entry = None if again else ledger.finished(item.case, now, output)
        result = None if entry is None else restore(item, entry | {SIGNATURE: now})
        if result is None:
            todo.append(item)
        else:
            results[item.case] = result
    silent, done = not (progress and todo), len(items) - len(todo)
    outcomes = tqdm(work_through(todo) if todo else (), title, len(items), initial=done, unit="case", disable=silent)
    for item, outcome in outcomes:
        if isinstance(outcome, str):
            problems[item.case] = one_line(outcome)
            continue
        results[item.case] = result = signed(outcome, signatures[item.case])
        entry = {**entry_of(result), SIGNATURE: signatures[item.case]}
        before = {} if output is None else ledger.written(item.case, output)
        made = list(written(item, result))
        try:
            ledger.remember(item.case, entry, made, output)
        except UserError as error:
            if output is None:
                raise
            # the disk is full: the files of the next case may be smaller
            problems[item.case] = str(error)
            del results[item.case]
            continue
        for path in set(before.values()).difference(made):
            path.unlink(missing_ok=True)  # of an earlier run with other settings
    return dict(sorted(results.items())), dict(sorted(problems.items()))
