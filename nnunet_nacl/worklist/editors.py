"""Lines for a shell that open a scan with its segmentation in an editor."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path


def editor_lines(image: str, segmentation: Path) -> dict[str, str]:
    """By editor the line that opens a scan, quoted for a POSIX shell and for Python.

    Args:
        image: File of the scan; empty where it is not known: the segmentation is opened alone.
        segmentation: Its file. ITK-SNAP does not open it beside an image of another format: of a
            DICOM series it has another grid.
    """
    segmentation_path = os.path.abspath(segmentation)
    lines = {}
    if not image:
        lines["ITK-SNAP"] = shlex.join(["itksnap", "-g", segmentation_path])
    elif Path(image).suffix == segmentation.suffix:
        lines["ITK-SNAP"] = shlex.join(["itksnap", "-g", image, "-s", segmentation_path])
    calls = [_slicer_call("loadSegmentation", segmentation_path)]
    if image:
        calls.insert(0, _slicer_call("loadVolume", image))
    lines["3D Slicer"] = shlex.join(["Slicer", "--python-code", "; ".join(calls)])
    return lines


def _slicer_call(function: str, path: str) -> str:
    """A call of 3D Slicer's Python: a JSON string is Python's, too, and stays legible in a
    shell."""
    return f"slicer.util.{function}({json.dumps(path, ensure_ascii=False)})"
