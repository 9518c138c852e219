"""`nnunet_nacl export`: a model as a zip that other sites can install."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_nacl.cli.options import add_shared, model_of
from nnunet_nacl.errors import UserError

HELP = "export a trained model with its calibration and a model card; --portable: nnU-Net alone can use it"

_DESCRIPTION = """\
Writes the zip of nnUNetv2_export_model_to_zip, and in it also calibration_map.json and model_card.md: data, plans,
trainer, how far the confidence holds (table and diagram), versions, hashes.

--portable is for sites that have nnU-Net alone. It records nnU-Net's own trainer in the checkpoints, and writes a map
that fits into them (-form) where the model is calibrated: temperature changes no label of a single network, shift
calibrates better and changes some; what it costs is printed. The map of calibration_map.json itself is conditional on
the label and fits into no checkpoint. The folder keeps its name, so that the site's own models stay. Refused where a
trainer changes the network.
"""

_EPILOG = """\
examples:
  nnunet_nacl export -d 4 -c 3d_fullres -tr nnUNetTrainerNACL -o hippocampus.zip
  nnunet_nacl export -d 4 -c 3d_fullres -tr nnUNetTrainerNACL -o hippocampus.zip --portable
There: `nnunet_nacl import`, or nnUNetv2_install_pretrained_model_from_zip.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add_shared(parser, "-d", "-c", required=True)
    add_shared(parser, "-tr", "-p", "-f")
    add("-o", metavar="FILE", required=True, help="the zip to write")
    add_shared(parser, "--trust_checkpoint")
    add("--portable", action="store_true", help="record nnU-Net's own trainer, so that nnU-Net alone can predict")
    add(
        "-form", choices=("temperature", "shift"), help="with --portable: map in the checkpoints (default: temperature)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the zip."""
    from nnunet_nacl.models.archive import export_model

    if args.form and not args.portable:
        raise UserError("-form is the map that --portable writes into the checkpoints: pass --portable too.")
    options = {"portable": args.portable, "form": args.form or "temperature", "log": print}
    path = export_model(model_of(args), Path(args.o), folds=args.f, **options)
    print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
