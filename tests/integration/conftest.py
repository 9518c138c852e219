"""Data sets in all label spaces, planned and preprocessed once per session by the stock
commands."""

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
    space.run_warm(
        "nnUNetv2_convert_MSD_dataset",
        "-i",
        tiny.make_task(space.folder / f"Task{tiny.TASK_ID}_Classes"),
    )
    space.call_warm(tiny.write_fingerprint, tiny.TASK_ID)
    plan = (
        "nnUNetv2_plan_and_preprocess",
        "-d",
        tiny.TASK_ID,
        "--no_pp",
        "-npfp",
        1,
        "--verify_dataset_integrity",
    )
    space.run_warm(*plan)
    space.run_warm("nnUNetv2_plan_experiment", "-d", tiny.TASK_ID, "-pl", "nnUNetPlannerResEncM")
    raw, planned = (
        space.dataset_folder(kind, tiny.TASK_ID) for kind in (space.raw, space.preprocessed)
    )
    default, residual = (
        tiny.read_json(planned / f"{tiny.PLANS[kind]}.json") for kind in ("default", "resenc")
    )
    plans = tiny.plans_of_every_kind(default, residual)
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    for label_space in tiny.LABEL_SPACES:
        folder = (
            planned
            if label_space == "classes"
            else tiny.copy_with_label_space(raw, planned, label_space)
        )
        for content in plans:
            tiny.write_json(
                folder / f"{content['plans_name']}.json", {**content, "dataset_name": folder.name}
            )
        # trainings begin side by side, and must not meet while one writes it
        tiny.write_json(folder / "splits_final.json", generate_crossval_split(cases))
    numbers = tiny.DATASET_IDS.values()
    space.run_warm("nnUNetv2_preprocess", "-d", *numbers, "-c", "3d_fullres", "3d_lowres", "-np", 1)
    return space
