"""nnU-Net's validation of a trained fold as it is, and with every case measured while it is
exported.

    python research/benchmarks/validation.py DATASET CONFIGURATION FOLD -tr TRAINER [--output PAGE]

Needs nnU-Net's environment variables, a preprocessed data set and a fold trained by one of this
package's trainers. Validations go to a temporary folder. CPU time is that of this process and of
nnU-Net's workers, whose number is nnUNet_def_n_proc; wall time is for machines that do nothing
else. The goal: at most 1.1 x nnU-Net's validation.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from page import describe_machine, table, write_section


def seconds() -> tuple[float, float]:
    """CPU time of this process and the workers that have ended, and wall time."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used), time.perf_counter()


def main() -> None:
    """Measures, prints, and writes the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("fold")
    parser.add_argument("-tr", default="nnUNetTrainerNACL")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    args = parser.parse_args()
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    fold = int(args.fold) if args.fold.isdecimal() else args.fold
    times: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        trainer = get_trainer_from_args(
            args.dataset,
            args.configuration,
            fold,
            args.tr,
            args.p,
            device=torch.device(args.device),
        )
        trained = Path(trainer.output_folder)
        trainer.initialize()
        trainer.load_checkpoint(str(trained / "checkpoint_final.pth"))
        (model / trained.name).mkdir(parents=True)
        for name in ("dataset.json", "plans.json"):
            shutil.copy(trained.parent / name, model)
        trainer.output_folder_base, trainer.output_folder = str(model), str(model / trained.name)
        trainer.log_file = str(model / "log.txt")
        for _ in range(args.rounds):
            for which, validate in {
                "nnU-Net's validation": lambda: nnUNetTrainer.perform_actual_validation(
                    trainer, False
                ),
                "... measured on the way": lambda: trainer.perform_actual_validation(False),
            }.items():
                shutil.rmtree(model / trained.name / "validation", ignore_errors=True)
                before = seconds()
                validate()
                times.setdefault(which, []).append(tuple(np.subtract(seconds(), before)))
        folder = model / trained.name / "validation"
        records = list((folder / "records").glob("*.npz"))
        cases = len(records)
        kept = sum(path.stat().st_size for path in (*records, folder / "calibration.json"))
    name = trainer.plans_manager.dataset_name
    medians = {which: np.median(values, axis=0) for which, values in times.items()}
    reference = medians["nnU-Net's validation"]
    rows = [
        [
            which,
            f"{cpu:.1f}",
            f"{wall:.1f}",
            f"{cpu / reference[0]:.2f}",
            f"{wall / reference[1]:.2f}",
        ]
        for which, (cpu, wall) in medians.items()
    ]
    text = "\n\n".join(
        [
            f"## Validation of {name}, {args.configuration}",
            (
                f"{cases} cases, {args.device}, medians of {args.rounds} interleaved rounds; goal:"
                " at most 1.1."
            ),
            table(["validation", "CPU s", "wall s", "CPU x nnU-Net", "wall x nnU-Net"], rows),
            f"{kept / cases / 1e6:.2f} MB a case are left on the disk beside the segmentation.",
            f"Machine: {describe_machine()}.",
        ]
    )
    print(text)
    if args.output:
        write_section(args.output, f"validation {name} {args.configuration}", text)


if __name__ == "__main__":
    main()
