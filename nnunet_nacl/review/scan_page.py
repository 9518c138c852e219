"""review/SCAN.html: the page of a scan, to look at it, to mark it and to go on to the next; with the list's pages."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from nnunet_nacl.case.findings import StructureFindings
from nnunet_nacl.review.review_list import PAGE, ReviewList, page_of, pictures_of
from nnunet_nacl.review.review_page import review_page, structure_lines, why_no_intervals
from nnunet_nacl.review.row import CaseReview, volume_text
from nnunet_nacl.show.rendering import render_page

MOST_FINDINGS = 5
"""Of a structure on a page."""
_FOR_SCRIPT = ("slices", "first", "of", "axis")


def all_pages(listed: ReviewList, output: Path) -> Iterator[tuple[str, str]]:
    """Place in the output folder and text of the list's pages, then of each scan's, one at a time."""
    yield from review_page(listed).items()
    for rank, review in enumerate(listed.rows, 1):
        if review.case in listed.paged:
            yield page_of(review.case), scan_page(listed, review, rank, output)


def scan_page(listed: ReviewList, review: CaseReview, rank: int, output: Path) -> str:
    """The page of a scan, from what the list says of it and from the pictures that its worker drew."""
    case, reasons = review.case, listed.reasons[review.case]
    try:
        pictures = json.loads((output / pictures_of(case)).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no image was found, or the file is damaged
        pictures = {}
    place = listed.paged.index(case)
    beside = {"prev": listed.paged[place - 1 : place] if place else [], "next": listed.paged[place + 1 : place + 2]}
    return render_page(
        "scan.html",
        ("marks.js", "scan.js"),
        list=listed,
        case=case,
        rank=rank,
        back=f"../{PAGE}",
        beside={way: f"{quote(name)}.html" for way, names in beside.items() for name in names},
        reasons=list(reasons),
        structures=[
            {
                "name": structure.name,
                "lines": structure_lines(structure, review, listed),
                "why": [reason for reason, names in reasons.items() if structure.name in names],
            }
            for structure in review.structures
        ],
        findings=_findings(listed.finished[case].findings, review.unit),
        no_intervals=why_no_intervals(listed),
        place=listed.finished[case].place,
        pictures=pictures,
        data=Markup(json.dumps({key: pictures[key] for key in _FOR_SCRIPT if pictures}).replace("<", "\\u003c")),
        editors=editor_lines(listed.finished[case].image, output / f"{case}{listed.file_ending}"),
    )


def editor_lines(image: str, segmentation: Path) -> dict[str, str]:
    """By editor the line that opens a scan with its segmentation, quoted for a POSIX shell and for Python.

    Args:
        image: File of the scan; empty where it is not known: then the segmentation is opened alone.
        segmentation: Its file.
    """
    path = os.path.abspath(segmentation)
    paths = {"loadVolume": image, "loadSegmentation": path}
    calls = [f"slicer.util.{call}({json.dumps(text, ensure_ascii=False)})" for call, text in paths.items() if text]
    python = "; ".join(calls)  # a JSON string is Python's, and in double quotes stays legible in the shell's
    lines = {"3D Slicer": shlex.join(["Slicer", "--python-code", python])}
    if not image or Path(image).suffix == segmentation.suffix:  # of a DICOM series it has another grid
        lines = {"ITK-SNAP": shlex.join(["itksnap", "-g", *([image, "-s"] if image else []), path]), **lines}
    return lines


def _findings(structures: Sequence[StructureFindings], unit: str) -> list[str]:
    """A line for each finding that is shown, the largest of each structure, and what is not shown."""
    length, lines = "pixels" if unit == "pixels" else "mm", list[str]()
    for structure in structures:
        for one in structure.found[:MOST_FINDINGS]:
            place = ", ".join(f"{value:.0f}" for value in one.centre_mm)
            probability = f"probability {one.mean_probability:.2f}, at most {one.max_probability:.2f}"
            size = f"{volume_text(one.volume)} {unit}, {probability}"
            lines.append(f"{structure.name}: {size}, centre ({place}) {length}")
        if (more := len(structure.found) - MOST_FINDINGS + structure.n_more) > 0:
            lines.append(f"and {more} more of {structure.name} in findings.csv")
    return lines
