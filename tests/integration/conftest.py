"""Planned and preprocessed once per session, by the stock commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from tests.integration import tiny_data as tiny
from tests.integration.chains import CHAINS, Chain, train
from tests.integration.workspace import Workspace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory, clean_environ: dict[str, str]) -> Workspace:
    """Data sets in all label spaces and one of thick slices, with all plans, preprocessed."""
    space = Workspace(tmp_path_factory.mktemp("nnunet"), clean_environ)
    for folder in (space.raw, space.preprocessed, space.results):
        folder.mkdir()
    blobs = tiny.make_task(space.folder / f"Task{tiny.TASK_ID}_Classes", (20, 22, 24), (1.0, 1.0, 1.0), seed=1)
    thick = tiny.make_task(space.folder / f"Task{tiny.THICK_SLICES_ID}_Thick", (9, 36, 32), (5.0, 1.0, 1.0), seed=2)
    for task in (blobs, thick):
        space.run_warm("nnUNetv2_convert_MSD_dataset", "-i", task)
    planned = (tiny.TASK_ID, tiny.THICK_SLICES_ID)
    for number in planned:
        space.call_warm(tiny.write_fingerprint, number)
    space.run_warm("nnUNetv2_plan_and_preprocess", "-d", *planned, "--no_pp", "-npfp", 1, "--verify_dataset_integrity")
    space.run_warm("nnUNetv2_plan_experiment", "-d", tiny.TASK_ID, "-pl", "nnUNetPlannerResEncM")
    plans_files = {
        number: space.dataset_folder(space.preprocessed, number) / f"{tiny.PLANS['default']}.json" for number in planned
    }
    residual = plans_files[tiny.TASK_ID].with_name(f"{tiny.PLANS['resenc']}.json")
    for path in (*plans_files.values(), residual):
        tiny.shrink_plans(path)
    tiny.add_low_resolution_and_cascade(plans_files[tiny.TASK_ID])
    for label_space, number in tiny.DATASET_IDS.items():
        if number != tiny.TASK_ID:
            plans_files[number] = tiny.copy_with_label_space(
                space.dataset_folder(space.raw, tiny.TASK_ID), plans_files[tiny.TASK_ID].parent, label_space
            )
        tiny.add_plans_of_other_kind(plans_files[number], residual)
    for number, path in plans_files.items():  # trainings begin side by side, and must not meet while one writes it
        labels = (space.dataset_folder(space.raw, number) / "labelsTr").iterdir()
        splits = generate_crossval_split(sorted(path.name.removesuffix(".nii.gz") for path in labels))
        path.with_name("splits_final.json").write_text(json.dumps(splits))
    space.run_warm("nnUNetv2_preprocess", "-d", *plans_files, "-c", "3d_fullres", "3d_lowres", "-np", 1)
    return space


@pytest.fixture(scope="session")
def trained(workspace: Workspace, request: pytest.FixtureRequest) -> Iterator[Callable[[Chain], Workspace]]:
    """Waits until a chain is trained. The chains of the selected tests are trained two at a time, from the first on."""
    selected = [
        item.callspec.params["chain"]
        for item in request.session.items
        if hasattr(item, "callspec") and isinstance(item.callspec.params.get("chain"), Chain)
    ]
    pool = ThreadPoolExecutor(min(2, os.cpu_count() or 1))
    futures = {chain: pool.submit(train, workspace, chain) for chain in CHAINS if chain in selected}

    def wait(chain: Chain) -> Workspace:
        if chain not in futures:
            futures[chain] = pool.submit(train, workspace, chain)
        futures[chain].result()
        return workspace

    yield wait
    pool.shutdown(cancel_futures=True)
