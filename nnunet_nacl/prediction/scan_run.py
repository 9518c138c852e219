"""A folder of scans in; segmentations, the review list and its page out.

Three steps run at the same time: worker processes read and preprocess, this process runs the networks, other workers
export and write. Each takes a case only when there is room for it, so memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.cases.image_files import check_name
from nnunet_nacl.cases.prediction_output import remove_unfinished
from nnunet_nacl.cases.reviewed_case import ReviewedCase
from nnunet_nacl.cases.worker_processes import guarded, stream_through_workers
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import remove_leftovers, to_json_text, write_atomically
from nnunet_nacl.json_files import one_line, read_dict
from nnunet_nacl.prediction.case_records import RECORDS, CaseRecords
from nnunet_nacl.prediction.delivery import MAPS, Delivery, Thumbnail
from nnunet_nacl.prediction.input_cases import InputCase, find_input_cases
from nnunet_nacl.prediction.network import Network, PredictedLogits
from nnunet_nacl.prediction.preprocessed_case import CompactImage, PreprocessedCase, read_and_preprocess
from nnunet_nacl.prediction.review_lists import PAGE, REVIEW, ReviewList
from nnunet_nacl.prediction.scan_list import DOCUMENT, write_lists
from nnunet_nacl.prediction.segmented_case import MAP_NAMES, Postprocessing
from nnunet_nacl.prediction.trained_model import TrainedModel

__all__ = ["ScanRun", "predict_folder"]

_ARGUMENTS = "predict_from_raw_data_args.json"
_GENERATED_BY = "nnunet_nacl predict"
_NAMES = {_ARGUMENTS, "dataset.json", "plans.json", DOCUMENT, REVIEW, PAGE, MAPS, RECORDS}
_PREPROCESSED_AHEAD, _EXPORTED_AHEAD = 1, 2  # as nnU-Net's queues
_DIED = "its process died, for lack of memory or over a damaged file; check both, or use smaller -npp and -nps."


@dataclass(frozen=True)
class ScanRun:
    """What is to be done.

    Attributes:
        images: Folder of the scans.
        output: Folder to write to.
        maps: Some of ``MAP_NAMES``, or None for those that the model can have.
        threshold: Cases with a lower predicted Dice are flagged.
        postprocessing: nnU-Net's, applied to every segmentation.
        postprocessing_source: Where it comes from, for the document.
        previous: Segmentations of the stage before, for a cascade.
        any_size: Predict scans of any size, which may take hours: see
            :func:`~nnunet_nacl.prediction.preprocessed_case.preprocess`.
        keep: Keep the cases that an earlier run finished; else all are predicted again.
        num_parts: Runs that share the cases, each with a number of its own.
        part: Which of them this is, from 0.
        preprocessing_processes: Cases that are read at the same time; 0 reads them in this process.
        export_processes: Likewise for what follows the network.
        command: For the document.
    """

    images: Path
    output: Path
    maps: tuple[str, ...] | None = ()
    threshold: float | None = None
    postprocessing: Postprocessing | None = None
    postprocessing_source: str = ""
    previous: Path | None = None
    any_size: bool = False
    keep: bool = False
    num_parts: int = 1
    part: int = 0
    preprocessing_processes: int = 3
    export_processes: int = 3
    command: str = ""

    @property
    def owner(self) -> str:
        """Of unfinished files."""
        return f"part{self.part}-" if self.num_parts > 1 else ""


@dataclass
class _Progress:
    """Counts cases, and keeps what is wrong with some."""

    records: CaseRecords
    bar: Any
    problems: dict[str, str] = field(default_factory=dict)

    def done(self, case: str, problem: str = "") -> None:
        self.bar.update()
        if problem:
            self.problems[case] = problem = one_line(problem)
            self.records.remember_problem(case, problem)


def predict_folder(
    model: TrainedModel,
    network: dict[str, Any],
    run: ScanRun,
    *,
    draw: Callable[[TrainedModel, CompactImage, ReviewedCase], Thumbnail],
    page: Callable[[ReviewList], str],
    progress: bool = False,
) -> tuple[ReviewList, dict[str, str]]:
    """Predict every scan of a folder.

    ``output`` becomes a folder as nnUNetv2_predict leaves it, with prediction.json, review.csv and index.html beside
    the segmentations. A scan that cannot be done costs only itself. Every file gets its name when it is whole, and a
    file of its own says that a case is finished: a run that was killed is continued by the same run with ``keep``.

    Args:
        model: The model.
        network: Arguments of :class:`~nnunet_nacl.prediction.network.Network` beside the model.
        run: What is to be done.
        draw: Makes the picture of a case; can be pickled (:func:`nnunet_nacl.show.thumbnail.draw_thumbnail`).
        page: Makes the page of them all (:func:`nnunet_nacl.show.review_page.review_page`).
        progress: Show a progress bar on stderr, with the time left.

    Returns:
        The list, which holds the cases of all parts, and what is wrong with the cases of this one.

    Raises:
        UserError: Folders or settings do not fit, or not a single case could be done.
    """
    from tqdm import tqdm

    maps = _check(model, run)
    cases, unusable = find_input_cases(run.images, model.opened.file_ending, model.num_channels, run.previous)
    settings = {
        "checkpoints": dict(zip(model.folds, model.hashes)),
        "decided": model.decided,
        "step_size": network.get("step_size", 0.5),
        "mirroring": network.get("mirroring", True),
        "postprocessing": run.postprocessing_source,
        "maps": list(maps),
    }
    records = CaseRecords(run.output, settings)
    _prepare(model, run)
    mine = cases[run.part :: run.num_parts]
    kept = [case for case in mine if run.keep and records.finished(case)]
    todo = [case for case in mine if case not in kept] if kept else mine
    delivery = Delivery(model, run.output, records, draw, maps, run.postprocessing, run.owner)
    first = unusable if run.part == 0 else {}
    try:
        with tqdm(
            total=len(mine) + len(first), initial=len(kept), desc="predict", unit="case", disable=not progress
        ) as bar:
            track = _Progress(records, bar)
            for case, problem in first.items():
                track.done(case, problem)
            if todo:
                _work(model, Network(model, **network), run, delivery, todo, track)
    finally:
        remove_unfinished(run.output, run.owner)
    found = write_lists(model, run, records, cases, unusable, settings, page)
    if not any(records.finished(case) for case in mine):
        listed = "".join(f"\n  {one_line(case)}: {problem}" for case, problem in track.problems.items())
        raise UserError(f"{run.images}: no case could be predicted.{listed}")
    return found, dict(sorted(track.problems.items()))


def _check(model: TrainedModel, run: ScanRun) -> tuple[str, ...]:
    """Names of the maps; UserError for settings that do not fit."""
    several = len(model.folds) > 1
    if not 0 <= run.part < run.num_parts:
        raise UserError(
            f"-part_id must be from 0 to {run.num_parts - 1} for -num_parts {run.num_parts}, got {run.part}."
        )
    if model.previous_stage and run.previous is None:
        raise UserError(
            f"a cascade: this network needs the segmentations of {model.previous_stage}. Predict them with that "
            "configuration's original checkpoint, and give their folder with -prev_stage_predictions."
        )
    if run.previous is not None and not model.previous_stage:
        raise UserError(f"-prev_stage_predictions {run.previous}: {model.configuration} is no stage of a cascade.")
    if run.threshold is not None and not 0 <= run.threshold <= 1:
        raise UserError(f"-threshold is a Dice, from 0 to 1, got {run.threshold:g}.")
    if run.threshold is not None and model.quality is None:
        raise UserError(f"-threshold is about predicted Dice, of which nothing is known: {' '.join(model.missing)}")
    for name in run.maps or ():
        if name not in MAP_NAMES:
            raise UserError(f"there is no map {name!r}; there are {', '.join(MAP_NAMES)}.")
        if name == "mutual_information" and not several:
            raise UserError("the map mutual_information compares folds: predict with several, -f 0 1 2 3 4.")
    return MAP_NAMES[: 4 if several else 3] if run.maps is None else tuple(dict.fromkeys(run.maps))


def _prepare(model: TrainedModel, run: ScanRun) -> None:
    """Make the output folder, before hours of work; UserError if it cannot be used."""
    output, images = run.output, run.images.resolve()
    check_name(output)
    if output.resolve() == images or images in output.resolve().parents:
        raise UserError(
            f"{output} is or lies in the folder of scans; nnU-Net would take them for scans. Choose another -o."
        )
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; give -o a folder.")
    theirs = os.listdir(output) if output.is_dir() else []  # listed first: of our files the one that tells is the first
    if not _is_ours(output):
        for name in theirs:
            if name in _NAMES or name.endswith((".npz", model.opened.file_ending)):
                raise UserError(f"{output} holds other images or predictions ({name}); choose another -o.")
    arguments: dict[str, Any] = {"list_of_lists_or_source_folder": str(images), "generated_by": _GENERATED_BY}
    arguments |= {"num_parts": run.num_parts, "part_id": run.part}
    write_atomically(output / _ARGUMENTS, to_json_text(arguments))
    try:
        (output / RECORDS).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot be made ({error.strerror}); choose another -o.") from None
    remove_unfinished(output, run.owner)
    if run.num_parts == 1:  # of other parts, these may be in hand
        remove_leftovers(output)
        remove_leftovers(output / RECORDS)
    for name, content in (("dataset.json", model.opened.dataset_json), ("plans.json", model.opened.plans)):
        write_atomically(output / name, to_json_text(content))
    (output / DOCUMENT).unlink(missing_ok=True)


def _is_ours(output: Path) -> bool:
    """Whether an earlier run, or another part of this one, wrote the folder; what nnU-Net has written since is not."""
    path = output / _ARGUMENTS
    with contextlib.suppress(UserError):
        return str(read_dict(path if path.exists() else output / DOCUMENT).get("generated_by")).startswith(
            "nnunet_nacl"
        )
    return False


def _work(
    model: TrainedModel, network: Network, run: ScanRun, delivery: Delivery, todo: Sequence[InputCase], track: _Progress
) -> None:
    by_name = {case.case: case for case in todo}
    finish = partial(_finish, delivery)
    with closing(_predicted(model, network, run, todo, track)) as predicted:
        items = ((by_name[one.case], one) for one in predicted)
        for (case, _), problem in stream_through_workers(finish, items, run.export_processes, ahead=_EXPORTED_AHEAD):
            track.done(case.case, f"{case.images[0]}: {_DIED}" if problem is None else problem)


def _predicted(
    model: TrainedModel, network: Network, run: ScanRun, todo: Sequence[InputCase], track: _Progress
) -> Generator[PredictedLogits, None, None]:
    read = partial(_read, model, run.any_size)
    processes = min(run.preprocessing_processes, len(todo))
    for case, prepared in stream_through_workers(read, todo, processes, ahead=_PREPROCESSED_AHEAD):
        track.records.forget(case.case)
        outcome = prepared or f"{case.images[0]}: {_DIED}"
        predicted = outcome if isinstance(outcome, str) else guarded(case.images[0], partial(network.predict, outcome))
        if isinstance(predicted, str):
            track.done(case.case, predicted)
        else:
            yield predicted


def _read(model: TrainedModel, any_size: bool, case: InputCase) -> PreprocessedCase | str:
    return guarded(case.images[0], partial(read_and_preprocess, model, case, any_size=any_size))


def _finish(delivery: Delivery, item: tuple[InputCase, PredictedLogits]) -> str:
    """What is wrong with the case, in words, or nothing."""
    return guarded(item[0].images[0], partial(delivery.finish, *item)) or ""
