"""Reads single files that nnU-Net wrote, and checks that they are what they should be.

nnU-Net's own reader classes do the reading, so every file ending and orientation that nnU-Net takes is taken here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.labels import Labels
from nnunet_nacl.evaluation.npz import read_array
from nnunet_nacl.evaluation.quiet import quiet
from nnunet_nacl.evaluation.whole import why_broken
from nnunet_nacl.json_files import first_line, one_line

__all__ = ["RERUN", "check_labels", "check_name", "find_reader", "read_probabilities", "read_segmentation"]

RERUN = "rerun the validation with `nnUNetv2_train ... --val --npz` or the prediction with --save_probabilities"


def find_reader(plans: dict[str, Any], dataset_json: dict[str, Any]) -> Any:
    """nnU-Net's reader of a data set's images.

    That of the plans, as in nnU-Net's validation, so that Dice agrees with its summary.json; else by the file ending.

    Raises:
        UserError: nnU-Net has none.
    """
    from nnunetv2.imageio.reader_writer_registry import (
        determine_reader_writer_from_dataset_json,
        recursive_find_reader_writer_by_name,
    )

    with quiet():
        try:
            return recursive_find_reader_writer_by_name(plans["image_reader_writer"])()
        except (KeyError, RuntimeError):
            pass
        try:
            return determine_reader_writer_from_dataset_json(dataset_json, verbose=False)()
        except RuntimeError as error:
            ending = dataset_json["file_ending"]
            raise UserError(f"No reader of nnU-Net takes {ending!r} files: {first_line(error)}") from None


def read_segmentation(reader: Any, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """(*spatial) label map and where it lies, by one of nnU-Net's readers; UserError if it cannot be read."""
    check_name(path)
    try:
        broken = why_broken(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore it or change its permissions.") from None
    if broken:
        raise UserError(f"{path}: cannot be read as a segmentation ({broken}); restore it.")
    try:
        with quiet():
            array, properties = reader.read_seg(str(path))
    except Exception as error:  # the readers raise whatever their libraries do
        raise UserError(f"{path}: cannot be read as a segmentation ({first_line(error)}); restore it.") from error
    return array[0], properties


def check_name(path: Path) -> None:
    """UserError for a path that is not UTF-8: SimpleITK ends the whole process on it, with no exception to catch."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{one_line(str(path))}: the name is not UTF-8, which the image libraries need; rename it."
        ) from None


def check_labels(array: np.ndarray, path: Path, labels: Labels, what: str) -> None:
    """UserError where a label map holds values that dataset.json does not have.

    Args:
        array: The label map.
        path: Its file.
        labels: What it may hold; the ignore label only if it is the ground truth.
        what: ``ground truth`` or ``prediction``.
    """
    allowed = set(labels.known)
    if labels.ignore_label is not None and what == "ground truth":
        allowed.add(labels.ignore_label)
    unknown = [str(value).removesuffix(".0") for value in np.unique(array) if value not in allowed]
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise UserError(
            f"{path}: the {what} holds the label {shown}, which dataset.json does not have "
            f"({', '.join(str(v) for v in sorted(allowed))}); correct the file or dataset.json."
        )


def read_probabilities(path: Path, labels: Labels, spatial: tuple[int, ...], beside: str) -> np.ndarray:
    """(K, *spatial) probabilities of an npz file, in a type that the metrics take.

    Args:
        path: The file.
        labels: What its channels are.
        spatial: The shape that belongs to it.
        beside: Where that shape comes from, in words.

    Raises:
        UserError: The file is missing or broken, or its array is of another shape or no floating point.
    """
    probs = read_array(path, "probabilities", hint=RERUN)
    expected = (len(labels.values), *spatial)
    if probs.shape != expected:
        what = "regions" if labels.regions else "classes"
        raise UserError(
            f"{path}: probabilities of shape {probs.shape}, but {expected[0]} {what} of "
            f"dataset.json and the {beside} ask for {expected}; {RERUN}."
        )
    if probs.dtype.kind != "f":
        raise UserError(f"{path}: probabilities must be floating point, got {probs.dtype}; {RERUN}.")
    if probs.dtype not in (np.float16, np.float32, np.float64) or not probs.dtype.isnative:
        probs = probs.astype(np.float64)
    return probs
