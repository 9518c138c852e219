"""Cases as a scanner with larger voxels would give them: images averaged over blocks of voxels, labels by majority.

    python docs/results/resolutions.py CASES OUT FACTOR FACTOR FACTOR

CASES holds images/ and labels/ of the same cases; FACTOR says how many voxels become one along x, y and z. Writes
OUT/images and OUT/labels. Each voxel lies where the block lay whose mean it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunet_nacl.files import replacing


def majority(labels: sitk.Image, factors: list[int]) -> sitk.Image:
    """The label that most voxels of a block have; the lowest of equals."""
    values = np.unique(sitk.GetArrayViewFromImage(labels))
    shares = [sitk.BinShrink(sitk.Cast(labels == int(value), sitk.sitkFloat32), factors) for value in values]
    most = np.argmax([sitk.GetArrayViewFromImage(share) for share in shares], axis=0)
    found = sitk.GetImageFromArray(values[most].astype(np.uint8))
    found.CopyInformation(shares[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("factors", type=int, nargs=3)
    arguments = parser.parse_args()
    for kind in ("images", "labels"):
        (arguments.out / kind).mkdir(parents=True, exist_ok=True)
        for path in tqdm(sorted((arguments.cases / kind).glob("*.nii.gz")), kind, unit="case"):
            image = sitk.ReadImage(str(path))
            if kind == "labels":
                shrunk = majority(image, arguments.factors)
            else:
                shrunk = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), arguments.factors)
            with replacing(arguments.out / kind / path.name, ending=".nii.gz") as temporary:
                sitk.WriteImage(shrunk, str(temporary))


if __name__ == "__main__":
    main()
