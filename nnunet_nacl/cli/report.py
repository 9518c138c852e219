"""`nnunet_nacl report`: one page that shows a comparison."""

from __future__ import annotations

import argparse

HELP = "make one self-contained HTML page of a comparison: findings, tables, figures and cases"

_DESCRIPTION = """\
Makes OUT/report.html from what `nnunet_nacl compare ... -o OUT` wrote: one file that needs no network and no other
file. It holds the findings in words, the tables (sortable), the figures, and for each data set a gallery of cases:
best, median and worst by Dice and by ECE, each with image, ground truth and, for every method, prediction, confidence
map and reliability, in the slice where the methods differ most.

The gallery reads the predictions with their npz files, or the slices that were kept of them, and the ground truth where
`compare` found them, and the images (nnUNet_raw, or where nnUNetv2_predict read them). What is not there is named, and
the page is made without it.
"""

_EPILOG = """\
The gallery holds images of the cases: --no-gallery leaves it out of a page that is to be passed on.
Exit status: 0; 1 if something is missing on the page (each is listed); 2 if it could not be made.

examples:
  nnunet_nacl compare -d 4 -c 2d -tr nnUNetTrainer nnUNetTrainerNACL -o comparison
  nnunet_nacl report -o comparison
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("-o", metavar="OUT", required=True, help="output folder of `nnunet_nacl compare`; the page goes there too")
    add("-channel", metavar="N", type=int, default=0, help="image channel of the gallery (default: %(default)s)")
    add("--no-gallery", action="store_true", help="leave out the cases and their images")


def run(args: argparse.Namespace) -> int:
    """Makes the page; exit status 1 if something is missing on it."""
    import sys
    from pathlib import Path

    from nnunet_nacl.errors import UserError
    from nnunet_nacl.show.page import make_page

    folder = Path(args.o)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the -o of `nnunet_nacl compare`.")
    if args.channel < 0:
        raise UserError(f"-channel must be 0 or more, got {args.channel}.")
    page = make_page(folder, gallery=not args.no_gallery, channel=args.channel, say=print)
    print(f"written: {page.path} ({page.size / 1e6:.1f} MB)")
    if page.problems:
        print(f"\nnnunet_nacl report: missing on the page ({len(page.problems)}):", file=sys.stderr)
        for problem in page.problems:
            print(f"  {problem}", file=sys.stderr)
    return 1 if page.problems else 0
