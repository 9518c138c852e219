"""What `predict` and `review` make of the options that both have, and say: the cases to look at first."""

from __future__ import annotations

import argparse
import logging
import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_nacl.cli.options import bad_of, report_problems, whole_number
from nnunet_nacl.errors import UserError, one_line, some, termination_as_interrupt
from nnunet_nacl.quality.flags import Flags, share_of
from nnunet_nacl.quality.unlike import DEFAULT_UNLIKE
from nnunet_nacl.reports.tables import text_of

if TYPE_CHECKING:
    from nnunet_nacl.calibrator.calibrator import Calibrator
    from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
    from nnunet_nacl.nnunet.records import Source
    from nnunet_nacl.worklist.deliver import Delivery, Run
    from nnunet_nacl.worklist.review_list import ReviewList

_SHOWN = 10  # lines
_WORST = 3  # structures


def work_of(
    args: argparse.Namespace,
    data: PredictionFolder,
    calibrator: Calibrator,
    n_networks: int = 1,
    unlike: float = DEFAULT_UNLIKE,
) -> Delivery:
    """What the options ask of each case, and of the list; UserError where they do not fit.

    Args:
        args: Of the subcommand.
        data: Labels, writer and plans of the data set.
        calibrator: The map, and what it has learned.
        n_networks: How many are averaged.
        unlike: A scan whose image is as odd with this probability at most is unlike the calibration scans.
    """
    from nnunet_nacl.cases.findings import finding_channels
    from nnunet_nacl.cases.measure import choose_maps
    from nnunet_nacl.worklist.deliver import Delivery
    from nnunet_nacl.worklist.review_list import Aims

    maps = () if args.maps is None else choose_maps(args.maps, n_networks)
    names, flags, sensitive = data.labels.structures, None, None
    if (bad := bad_of(args, names)) is not None:
        if calibrator.learned is None:
            raise UserError(f"-bad: nothing is known of Dice: {' '.join(calibrator.missing)}")
        shares = share_of(args.find, "-find"), share_of(args.miss, "-miss")
        flags = Flags.of(calibrator.learned.scores, bad, names, *shares)
    if (recall := share_of(args.recall, "-recall")) is not None:
        several = n_networks > 1 or args.subcommand == "review"  # which is not told
        sensitive = calibrator.sensitive(recall, names, several)
    if not 0 < unlike < 1:
        raise UserError(f"-unlike is a probability, above 0 and below 1, got {unlike:g}.")
    return Delivery(
        calibration=calibrator.log_odds_map,
        output=Path(args.o),
        data=data,
        calibrator=calibrator,
        aims=Aims(flags, unlike, whole_number(args.also, "-also", "", 1) or 0, args.pages, sensitive),
        maps=maps,
        probabilities=args.save_probabilities,
        findings=finding_channels(data.labels, args.findings, calibrator.with_findings),
        pictures=args.pages != "none",
    )


def deliver_as_asked(
    args: argparse.Namespace, source: Source, delivery: Delivery, run: Run, images: Mapping[str, Path], **options: Any
) -> int:
    """Does the cases and prints their list; exit status 1 if some could not be done.

    ``images`` are the first channels, for ``--slicer``; options are those of deliver.
    """
    from nnunet_nacl.nnunet.output import SENSITIVE
    from nnunet_nacl.worklist.deliver import NOT_YET, deliver
    from nnunet_nacl.worklist.list_files import PAGES
    from nnunet_nacl.worklist.slicer import TO_EDIT, check_images, write_mapping

    name, output = "scan" if args.subcommand == "predict" else "case", delivery.output
    run = replace(run, command=shlex.join(["nnunet_nacl", *args.argv]))
    if args.slicer:
        check_images(images.values(), output)
    try:
        with termination_as_interrupt():
            listed, problems = deliver(source, delivery, run, again=args.overwrite, **options)
    except KeyboardInterrupt:
        logging.getLogger(__name__).error("\nstopped: the finished %ss are kept; go on with the same command", name)
        raise
    print_list(listed, output, name)
    if args.slicer:
        folder = output / PAGES
        mapped = {case: images[case] for case in listed.scans.index}
        kept = write_mapping(folder, output, mapped, listed.about.file_ending)
        print(f"3D Slicer: open {folder} in SegmentationReview")
        if kept:
            where = folder / TO_EDIT
            print(f"note: {where} keeps {len(kept)} masks of an earlier run; remove it to have them made anew.")
    print(f"segmentations: {output}")
    if delivery.aims.sensitive:
        print(delivery.aims.sensitive.text(str(output / SENSITIVE)))
    if delivery.maps:
        print(f"maps: {output / 'maps'}/{name.upper()}/   ({', '.join(delivery.maps)})")
    if n_waiting := list(listed.about.problems.values()).count(NOT_YET):
        print(f"{n_waiting} {name}s of other parts are not done yet, or failed; their own run says why.")
    report_problems(args.subcommand, problems)
    return 1 if problems else 0


def print_list(listed: ReviewList, output: Path, name: str) -> None:
    """Prints the cases, by the name that they have, to look at first and why, the notes, and where the list is."""
    from nnunet_nacl.cases.findings import FINDINGS
    from nnunet_nacl.worklist.list_files import PAGE, RESEARCH, REVIEW, SCANS, STRUCTURES

    scans = listed.scans
    if len(scans):
        shown = f"{min(_SHOWN, len(scans))} of {len(scans)} {name}s"
        print(f"{listed.summary}\nPredicted Dice, the lowest first ({shown}):\n{_table_text(listed)}")
    if listed.structures.dice_low.notna().any():
        print("In brackets: 90 % intervals, for patients like those that the map was learned from.")
    if any(scans.unlike[:_SHOWN]):
        print("!: not supported, the scan is unlike those.")
    for case in listed.cases("is_flagged")[:_SHOWN]:
        if why := listed.reasons(case):
            print(f"  {one_line(case)}: {one_line('; '.join(why))}")
    if chosen := sorted(listed.cases("is_random")):
        print(f"Chosen by chance, to be looked at too: {one_line(some(chosen, _SHOWN))}")
    for note in listed.about.notes:
        print(f"note: {note}")
    print(f"\nlist: {output / PAGE}" + "".join(f"\n      {output / file}" for file in (REVIEW, STRUCTURES, SCANS)))
    if any(listed.records[case].findings for case in scans.index):
        print(f"findings: {output / FINDINGS}")
    print(RESEARCH)


def _table_text(listed: ReviewList) -> str:
    """The first rows of the list: predicted Dice of each structure, of more than three the worst three.

    Behind it stands how probably the structure is present, where that is known.
    """
    from nnunet_nacl.worklist.reasons import dice_text, worst_first

    lines, is_many = [], listed.structures.key.nunique() > _WORST
    first: list[Any] = list(listed.scans[:_SHOWN].itertuples())
    for rank, scan in enumerate(first, 1):
        line, structures = {"rank": rank, "case": scan.Index}, listed.structures.loc[[scan.Index]]
        rows: list[Any] = list((worst_first(structures)[:_WORST] if is_many else structures).itertuples())
        for i, row in enumerate(rows, 1):
            cell = dice_text(row) + "!" * (bool(scan.unlike) and not math.isnan(row.dice_low))
            cell += "" if math.isnan(row.present) else f", present {row.present:.2f}"
            line |= {f"worst {i}": f"{row.name} {cell}"} if is_many else {row.name: cell}
        lines.append(line)
    return text_of(lines, keys=2)
