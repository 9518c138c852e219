"""Cases in; segmentations, maps, the review list and its page out: the one way, wherever the cases come from."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.calibrate.map_file import APPLIED_FILE, named_map, structures_of
from nnunet_nacl.dicom.output import DICOM
from nnunet_nacl.errors import UserError, list_problems, one_line
from nnunet_nacl.files import locked, to_json_text, write_atomically
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.nnunet.output import MAPS, open_output
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.review.list_files import RECORDS, RESEARCH, places_of_list, promises, remove_list
from nnunet_nacl.review.pages import write_list
from nnunet_nacl.review.predicted_quality import QualityOfMap
from nnunet_nacl.review.prediction_json import DOCUMENT, SCHEMA_VERSION, PredictedCases, PredictionRecord
from nnunet_nacl.review.reasons import LOWEST_MEMBERS_DICE
from nnunet_nacl.review.review_list import DRAW_SEED, About, Aims, ReviewList, review_list
from nnunet_nacl.review.reviewed_case import FinishedCase, ReviewedCase
from nnunet_nacl.runs.ledger import Ledger, contents
from nnunet_nacl.runs.run import run

NOT_YET = "not predicted yet: run the part that has it."

Written = tuple[FinishedCase, tuple[Path, ...]]
"""What is kept of a case, and its files."""

Draw = Callable[[PredictionFolder, ReviewedCase, np.ndarray | None, Sequence[Path]], Written]
"""What is kept of a case, with pictures: :func:`nnunet_nacl.review.pictures.draw_scan`."""


@dataclass(frozen=True)
class Delivery:
    """What becomes of the cases; can be pickled.

    Attributes:
        output: Folder to write to.
        draw: What is kept of a case.
        calibration: Map that probabilities are taken through; None leaves them.
        quality: What the map has learned; None where nothing is known.
        map_path: The file of the map; None where there is none.
        maps: Some of :data:`~nnunet_nacl.review.reviewed_case.MAPS`, or ``probabilities``.
        probabilities: Save the probabilities too (npz and pkl).
        findings: Channels of the structures whose components are listed.
        aims: Of the list.
        command: For the document.
        notes: What whoever uses the list must know, beside what the source says.
    """

    output: Path
    draw: Draw
    calibration: LogOddsMap | None = None
    quality: QualityOfMap | None = None
    map_path: Path | None = None
    maps: tuple[str, ...] = ()
    probabilities: bool = False
    findings: tuple[int, ...] = ()
    aims: Aims = Aims()
    command: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where cases come from, and how they are worked on.

    Attributes:
        data: Labels, reader and plans of the cases.
        cases: Those that can be done, of all parts.
        unusable: Why others cannot, by case.
        sign: What the result of a case depends on, given the earlier signature: see
            :func:`nnunet_nacl.runs.ledger.sign`.
        work: Gives what comes of each case: a line where something is wrong.
        places: Folders that the cases come from, which the output must not lie in.
        record: Name and content of the file that tells whose the output folder is.
        document: What prediction.json says of cases and settings.
        made: How the segmentations were made, for the page: text by heading.
        notes: What whoever uses the list must know, given the names of the finished cases.
        members: Names of the networks that are averaged; one if there is nothing to average.
        begin: Called with the ledger when the output folder is there.
        num_parts: Runs that share the cases, each with a number of its own.
        part: Which of them this is, from 0.
    """

    data: PredictionFolder
    cases: Sequence[Any]
    unusable: Mapping[str, str]
    sign: Callable[[Any, Any], dict[str, Any]]
    work: Callable[[Sequence[Any]], Generator[tuple[Any, Written | str], None, None]]
    places: Sequence[Path]
    record: tuple[str, Mapping[str, Any]]
    document: PredictedCases
    made: Mapping[str, str]
    notes: Callable[[Iterable[str]], list[str]]
    members: Sequence[str]
    begin: Callable[[Ledger], None] = lambda ledger: None
    num_parts: int = 1
    part: int = 0


def deliver(
    source: Source,
    delivery: Delivery,
    *,
    title: str = "",
    again: bool = False,
    progress: bool = False,
) -> tuple[ReviewList, dict[str, str]]:
    """Do every case of a source, or of one part of it.

    The output becomes a folder as nnUNetv2_predict leaves it, with prediction.json, index.html and its tables beside
    the segmentations. A case that cannot be done costs only itself. Every file gets its name when it is whole, and a
    file of its own says that a case is finished, from which files and settings: the same run goes on where it was.

    Args:
        source: The cases.
        delivery: What becomes of them.
        title: Of the progress bar.
        again: Do the cases again that an earlier run finished.
        progress: Show the bar on stderr, with the time left.

    Returns:
        The list, which holds the cases of all parts, and what is wrong with the cases of this one.

    Raises:
        UserError: Folders or settings do not fit, or not a single case could be done. A part that has no case is none.
    """
    output, data = delivery.output, source.data
    structures = structures_of(data.labels)
    map_file = named_map(delivery.map_path) if delivery.map_path else None
    places = places_of_list(output, [case.case for case in source.cases])
    names = (*places, MAPS, DICOM, RECORDS, APPLIED_FILE)
    list_lock, signatures = output / ".nnunet_nacl.list.lock", dict[str, dict[str, Any]]()

    def sign(case: Any, earlier: Any) -> dict[str, Any]:
        signatures[case.case] = source.sign(case, earlier or signatures.get(case.case))
        return signatures[case.case]

    with open_output(output, source.places, data, source.record, names, part=source.part), ExitStack() as stack:
        ledger = Ledger(output / RECORDS)
        with locked(list_lock):
            remove_list(output)
        source.begin(ledger)
        do: Any = partial(
            run,
            sign=sign,
            restore=_restore,
            entry_of=lambda result: encode(result[0]),
            written=lambda case, result: result[1],
            output=output,
        )
        mine, options = source.cases[source.part :: source.num_parts], {"title": title, "progress": progress}
        finished, problems = do(
            mine, lambda todo: stack.enter_context(closing(source.work(todo))), ledger, again=again, **options
        )
        for case, problem in problems.items() if source.num_parts > 1 else ():
            with contextlib.suppress(UserError):  # this run still ends with the problem
                ledger.remember_problem(case, problem)
        unusable = {case: one_line(problem) for case, problem in source.unusable.items()}
        done, wrong = {case: result[0] for case, result in finished.items()}, problems
        with locked(list_lock):  # the part that writes it last knows what all have finished
            if source.num_parts > 1:
                done, wrong = _of_all_parts(source, output, do)
            waiting = [case.case for case in source.cases if case.case not in done and case.case not in wrong]
            wrong = dict(sorted({**wrong, **unusable}.items()))
            seen = {case: contents(signature) for case, signature in sorted(signatures.items())}
            same = [os.path.abspath(output), map_file, source.document, seen]  # a run that goes on keeps its marks
            run_id = hashlib.sha256(to_json_text(same).encode()).hexdigest()[:12]
            about = About(
                str(data.plans.get("dataset_name") or data.folder.name),
                list(structures.values()),
                source.members,
                {**wrong, **dict.fromkeys(waiting, NOT_YET)},
                [*delivery.notes, *source.notes(done)],
                source.made,
                run_id,
                data.file_ending,
            )
            listed = review_list(done.values(), delivery.quality, delivery.aims, about)
            write_list(listed, output)
            record: PredictionRecord = {
                "schema_version": SCHEMA_VERSION,
                "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
                "run": run_id,
                "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "command": delivery.command,
                "calibration_map": map_file,
                "maps": list(delivery.maps),
                **source.document,
                "problems": wrong,
                "not_predicted_yet": waiting,
                "flags": encode(delivery.aims.flags),
                "unlike": encode(listed.unlike),
                "members_dice_threshold": LOWEST_MEMBERS_DICE if len(source.members) > 1 else None,
                "notes": [*about.notes, listed.reservation, RESEARCH],
                "n_cases": len(listed.scans),
                "n_to_look_at": len(listed.cases("is_flagged")),
                "scans": promises(listed),
                "drawn": {"seed": DRAW_SEED, "cases": sorted(listed.cases("is_drawn"))} if delivery.aims.also else None,
            }
            write_atomically(output / DOCUMENT, to_json_text(record))
    problems = dict(sorted({**problems, **(unusable if source.part == 0 else {})}.items()))
    if problems and not finished:
        raise UserError(f"{source.places[0]}: no case could be done.{list_problems(problems)}")
    return listed, problems


def _restore(case: Any, entry: dict[str, Any]) -> Written | None:
    with contextlib.suppress(UserError):  # from another version, or edited
        return decode(FinishedCase, entry, case.case), ()
    return None


def _of_all_parts(source: Source, output: Path, do: Any) -> tuple[dict[str, FinishedCase], dict[str, str]]:
    """What is finished now, and why some cases could not be done."""
    ledger = Ledger(output / RECORDS)
    finished = {case: result[0] for case, result in do(source.cases, lambda todo: (), ledger)[0].items()}
    names = {case.case for case in source.cases} - finished.keys()
    return finished, {case: problem for case, problem in ledger.problems.items() if case in names}
