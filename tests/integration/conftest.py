"""Data sets in all label spaces, planned and preprocessed once a session by nnU-Net's commands."""

from __future__ import annotations

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, clean_environ: dict[str, str]) -> Workspace:
    """Data sets in all label spaces with all plans, preprocessed."""
    space = Workspace(tmp_path_factory.mktemp("nnunet"), clean_environ)
    for folder in (space.raw, space.preprocessed, space.results):
        folder.mkdir()
    convert_and_plan(space)
    write_label_spaces(space)
    numbers = tiny.DATASET_IDS.values()
    space.run_warm("nnUNetv2_preprocess", "-d", *numbers, "-c", "3d_fullres", "3d_lowres", "-np", 1)
    return space


def convert_and_plan(space: Workspace) -> None:
    """Write the data set of classes to nnU-Net's raw folder, and plan it, default and residual."""
    task = tiny.make_task(space.folder / f"Task{tiny.TASK_ID}_Classes")
    space.run_warm("nnUNetv2_convert_MSD_dataset", "-i", task)
    space.call_warm(tiny.write_fingerprint, tiny.TASK_ID)
    options = "--no_pp -npfp 1 --verify_dataset_integrity"
    space.run_warm(f"nnUNetv2_plan_and_preprocess -d {tiny.TASK_ID} {options}")
    space.run_warm(f"nnUNetv2_plan_experiment -d {tiny.TASK_ID} -pl nnUNetPlannerResEncM")


def write_label_spaces(space: Workspace) -> None:
    """The other label spaces' data sets, and in the folders of all the plans of every kind."""
    raw = space.dataset_folder(space.raw, tiny.TASK_ID)
    planned = space.dataset_folder(space.preprocessed, tiny.TASK_ID)
    default = tiny.read_json(planned / f"{tiny.PLANS['default']}.json")
    residual = tiny.read_json(planned / f"{tiny.PLANS['resenc']}.json")
    all_plans = tiny.plans_of_every_kind(default, residual)
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    for label_space in tiny.LABEL_SPACES:
        folder = planned
        if label_space != "classes":
            folder = tiny.copy_with_label_space(raw, planned, label_space)
        for plans in all_plans:
            path = folder / f"{plans['plans_name']}.json"
            tiny.write_json(path, plans | {"dataset_name": folder.name})
        # trainings begin side by side, and must not meet while one writes it
        tiny.write_json(folder / "splits_final.json", generate_crossval_split(cases))
