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
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from page import join_section, table, write_section
from timing import Seconds, read_clocks

STOCK = "nnU-Net's validation"


def open_trainer(args: argparse.Namespace, model: Path) -> Any:
    """The trained fold, whose validations go into another model folder."""
    from nnunetv2.run.run_training import get_trainer_from_args

    fold = int(args.fold) if args.fold.isdecimal() else args.fold
    device = torch.device(args.device)
    trainer = get_trainer_from_args(
        args.dataset, args.configuration, fold, args.tr, args.p, device=device
    )
    trained = Path(trainer.output_folder)
    trainer.initialize()
    trainer.load_checkpoint(str(trained / "checkpoint_final.pth"))
    (model / trained.name).mkdir(parents=True)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(trained.parent / name, model)
    trainer.output_folder_base = str(model)
    trainer.output_folder = str(model / trained.name)
    trainer.log_file = str(model / "log.txt")
    return trainer


def measure_validations(trainer: Any, rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of each kind of validation in each round; the last one leaves its files."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    kinds: dict[str, Callable[[], object]] = {
        STOCK: lambda: nnUNetTrainer.perform_actual_validation(trainer, False),
        "... measured on the way": lambda: trainer.perform_actual_validation(False),
    }
    seconds: dict[str, list[Seconds]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, validate in kinds.items():
            shutil.rmtree(Path(trainer.output_folder) / "validation", ignore_errors=True)
            start = read_clocks()
            validate()
            seconds[kind].append(read_clocks().since(start))
    return seconds


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
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        trainer = open_trainer(args, Path(temporary) / "model")
        seconds = measure_validations(trainer, args.rounds)
        validation = Path(trainer.output_folder) / "validation"
        records = list((validation / "records").glob("*.npz"))
        kept = [*records, validation / "calibration.json"]
        megabytes_a_case = sum(path.stat().st_size for path in kept) / len(records) / 1e6
    stock_cpu = median(taken.cpu for taken in seconds[STOCK])
    stock_wall = median(taken.wall for taken in seconds[STOCK])
    rows = []
    for kind, of_rounds in seconds.items():
        cpu = median(taken.cpu for taken in of_rounds)
        wall = median(taken.wall for taken in of_rounds)
        ratios = [f"{cpu / stock_cpu:.2f}", f"{wall / stock_wall:.2f}"]
        rows.append([kind, f"{cpu:.1f}", f"{wall:.1f}", *ratios])
    name = trainer.plans_manager.dataset_name
    text = join_section(
        f"## Validation of {name}, {args.configuration}",
        f"{len(records)} cases, {args.device}, medians of {args.rounds} interleaved rounds; goal:"
        " at most 1.1.",
        table(["validation", "CPU s", "wall s", "CPU x nnU-Net", "wall x nnU-Net"], rows),
        f"{megabytes_a_case:.2f} MB a case are left on the disk beside the segmentation.",
    )
    print(text)
    if args.output:
        write_section(args.output, f"validation {name} {args.configuration}", text)


if __name__ == "__main__":
    main()
