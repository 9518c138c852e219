"""`nnunet_nacl predict`: segments scans, and lists those that a human should check."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from pathlib import Path

from nnunet_nacl.cli.options import NETWORK, add_flags, add_shared, model_of, network_of, whole_number

HELP = "predict scans and list those to look at first"

_DESCRIPTION = """\
Segments scans as nnUNetv2_predict does, and in the same pass lists those that a human should check, and where.
example: nnunet_nacl predict -i scans -o out -d 4 -c 3d_fullres -bad 0.7
"""
_UNLIKE = "an image so improbable among the calibration scans is unlike them (default: %(default)s)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments: nnUNetv2_predict's, with the same meaning, and ours."""
    parser.usage = "%(prog)s -i SCANS -o OUT (-d DATASET -c CONFIGURATION | -m FOLDER) [options]"
    parser.description = _DESCRIPTION
    add = parser.add_argument
    add(
        "-i",
        metavar="SCANS",
        required=True,
        help="folder of images named SCAN_0000, SCAN_0001, ... (channels), or of DICOM series",
    )
    add("-o", metavar="OUT", required=True, help="output folder; open index.html there")
    model = parser.add_mutually_exclusive_group(required=True)
    add_shared(model, "-d", "-m")
    add_shared(parser, "-c", "-tr", "-p", "-f")
    add("-chk", metavar="NAME", help="checkpoint of the folds (default: checkpoint_final.pth)")
    add("-map", metavar="FILE", help="calibration map of this model (default: calibration_map.json in its folder)")
    add_flags(parser)
    add("-unlike", metavar="P", type=float, default=0.05, help=_UNLIKE)
    add_shared(parser, "-recall", "-findings", "-pages")
    maps = "confidence, entropy, mutual_information (default: these), probabilities, fractional"
    add("-maps", metavar="MAP", nargs="*", help=maps)
    add("-codes", metavar="FILE", help='for DICOM: .json, {"liver": {"code": "10200004", "meaning": "Liver"}}')
    axes = "for DICOM: axes of the training's images (default: as in nnUNet_preprocessed)"
    add("-orientation", metavar="XYZ", default="", help=axes)
    add("-prev_stage_predictions", metavar="FOLDER", help="segmentations of the stage before, for a cascade")
    add_shared(parser, *NETWORK)
    add("--any_size", action="store_true", help="predict scans of a size far beyond the training's, too")
    add("--not_on_device", action="store_true", help="keep a scan's logits off the GPU, if its memory is too small")
    for name, verb in (("npp", "read"), ("nps", "export")):
        add(f"-{name}", metavar="N", type=int, help=f"processes that {verb} scans (default: nnUNet_{name}, or 3)")
    add("-num_parts", metavar="N", type=int, default=1, help="runs that share the scans (default: %(default)s)")
    add("-part_id", metavar="I", type=int, default=0, help="which of them this is, from 0 (default: %(default)s)")
    add_shared(parser, "--trust_checkpoint", "--quiet")
    add("--save_probabilities", action="store_true", help="save nnU-Net's probabilities (npz, pkl) too")
    add("--verbose", action="store_true", help="let nnU-Net say what it does")
    add("--overwrite", action="store_true", help="do every scan again (default: only what changed)")
    add("--continue_prediction", action="store_true", help=argparse.SUPPRESS)  # finished scans are kept anyway
    add("--disable_progress_bar", action="store_true", help=argparse.SUPPRESS)  # --quiet shows none either


def run(args: argparse.Namespace) -> int:
    """Predicts; exit status 1 if some scans could not be done."""
    from nnunet_nacl.cli.review_text import deliver_as_asked, work_of
    from nnunet_nacl.review.predicted_quality import CalibratedModel
    from nnunet_nacl.review.sources import predict_source

    readers, exporters = _processes(args, "npp"), _processes(args, "nps")
    model = CalibratedModel.open(model_of(args), args.f, args.chk).with_map(Path(args.map) if args.map else None)
    why_not = " ".join(model.missing) or "the map has learned nothing."
    data = model.opened
    delivery = work_of(args, data, (model.calibration, model.quality, why_not), len(model.folds), args.unlike)
    network = network_of(args)
    source, maker, run = predict_source(
        model,
        network | {"everything_on_device": not args.not_on_device, "verbose": args.verbose},
        Path(args.i),
        previous=Path(args.prev_stage_predictions) if args.prev_stage_predictions else None,
        dicom=(Path(args.codes) if args.codes else None, args.orientation),
        parts=(args.num_parts, args.part_id),
        any_size=args.any_size,
        readers=readers,
        exporters=exporters,
        with_disagreement="mutual_information" in delivery.maps,
    )
    if args.m:
        print("note: a model can hold code, which nnU-Net's own commands run: take models from people that you trust.")
    for missing in (*model.missing, *model.other_inference(args.step_size, not args.disable_tta)):
        logging.getLogger(__name__).info("note: %s", missing)
    _set_threads(network["device"])
    images = {name: source.path(name) for name in source.names}
    delivery, title = replace(delivery, dicom=maker), "" if args.disable_progress_bar else "predict"
    return deliver_as_asked(args, source, delivery, run, images, title=title)


def _processes(args: argparse.Namespace, name: str) -> int:
    number = whole_number(getattr(args, name), f"-{name}", f"nnUNet_{name}", 0)
    return 3 if number is None else number


def _set_threads(device: str) -> None:
    """As nnUNetv2_predict; but OMP_NUM_THREADS, which PyTorch has read, holds: the run may share its cores."""
    import multiprocessing

    import torch

    if device != "cpu":
        torch.set_num_threads(1)
    elif not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(multiprocessing.cpu_count())
