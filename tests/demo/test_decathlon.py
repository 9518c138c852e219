"""Decathlon tasks: downloaded from a server on this machine, and checked before nnU-Net reads them."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nnunet_nacl.demo.decathlon import BASE_URL_VARIABLE, MD5, dataset_of, download_task
from nnunet_nacl.errors import UserError

TASK = "Task04_Hippocampus"


def make_tar(*members: tuple[str, bytes | tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


GOOD = make_tar(
    (f"{TASK}/dataset.json", b"{}"),
    (f"./{TASK}/imagesTr/case.nii.gz", bytes(range(256)) * 4000),
    (f"{TASK}/imagesTr/._case.nii.gz", b"AppleDouble"),
)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Server:
    """Serves `content` at /TASK.tar; counts what it was asked for and can misbehave."""

    def __init__(self):
        self.content, self.status, self.send_at_most, self.requests = GOOD, 200, None, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                if outer.status != 200 or self.path != f"/{TASK}.tar":
                    return self.send_error(outer.status if outer.status != 200 else 404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content[: outer.send_at_most])

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    """Stands for the mirror."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    one = Server()
    monkeypatch.setenv(BASE_URL_VARIABLE, one.url + "/")
    monkeypatch.setitem(MD5, TASK, md5(GOOD))
    yield one
    one.close()


@pytest.fixture
def fetch(server, tmp_path, monkeypatch):
    def run(published=None):
        monkeypatch.setitem(MD5, TASK, published or md5(server.content))
        download_task(TASK, tmp_path)

    return run


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_good_archive_is_unpacked_and_not_downloaded_again(fetch, server, tmp_path):
    fetch()
    folder = tmp_path / TASK
    assert (folder / "imagesTr" / "case.nii.gz").read_bytes() == bytes(range(256)) * 4000
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["case.nii.gz", "dataset.json"]
    assert left_in(tmp_path) == [TASK]
    fetch()
    assert server.requests == 1


@pytest.mark.parametrize(("most", "published"), [(None, "0" * 32), (300_000, md5(GOOD))])
def test_a_wrong_md5_is_named_and_nothing_is_unpacked(fetch, server, tmp_path, most, published):
    server.send_at_most = most
    with pytest.raises(UserError, match=f"{published}|cannot download.*"):
        fetch(published)
    assert left_in(tmp_path) == []


def test_a_missing_file_names_address_and_status(fetch, server):
    server.status = 404
    with pytest.raises(UserError, match=rf"{server.url}/{TASK}\.tar .*404.*{BASE_URL_VARIABLE}"):
        fetch()


def test_offline_says_so_and_what_to_do(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv(BASE_URL_VARIABLE, f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(UserError, match=r"offline.*--data"):
        download_task(TASK, tmp_path)


def test_an_unknown_task_lists_the_ten(tmp_path):
    with pytest.raises(UserError, match="Task11_Foot.*Task01_BrainTumour.*Task10_Colon"):
        download_task("Task11_Foot", tmp_path)


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("../outside.txt", b"x"),
        ("/tmp/nnunet_nacl_outside.txt", b"x"),
        (f"{TASK}/../../outside.txt", b"x"),
        (f"{TASK}/link", link(tarfile.SYMTYPE, "/etc/passwd")),
        (f"{TASK}/link", link(tarfile.LNKTYPE, "/etc/passwd")),
        (f"{TASK}/device", link(tarfile.CHRTYPE, "")),
    ],
)
def test_only_files_of_the_task_are_unpacked(fetch, server, tmp_path, member, content):
    server.content = make_tar((f"{TASK}/dataset.json", b"{}"), (member, content))
    fetch()
    assert [path.name for path in tmp_path.rglob("*")] == [TASK, "dataset.json"]
    assert not (tmp_path.parent / "outside.txt").exists() and not Path("/tmp/nnunet_nacl_outside.txt").exists()


def test_a_foreign_folder_of_that_name_is_left_alone(fetch, server, tmp_path):
    (tmp_path / TASK).mkdir()
    (tmp_path / TASK / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="remove it"):
        fetch()
    assert (tmp_path / TASK / "mine.txt").read_text() == "keep" and server.requests == 0


@pytest.fixture
def make_task(tmp_path):
    def make(name="Task09_Spleen", cases=5, without=(), **changes):
        folder = tmp_path / name
        for part in {"imagesTr", "labelsTr", "imagesTs"} - set(without):
            (folder / part).mkdir(parents=True)
        if "labelsTr" not in without:
            for i in range(cases):
                (folder / "labelsTr" / f"spleen_{i}.nii.gz").touch()
                (folder / "labelsTr" / f"._spleen_{i}.nii.gz").touch()
        description = {"labels": {"0": "background"}, "modality": {"0": "CT"}, "training": [], "test": [], **changes}
        (folder / "dataset.json").write_text(json.dumps({k: v for k, v in description.items() if v is not None}))
        return folder

    return make


def test_a_task_is_read(make_task):
    assert dataset_of(make_task()) == "Dataset009_Spleen"


def test_a_link_is_fine(make_task, tmp_path):
    (tmp_path / "Task12_Mine").symlink_to(make_task(name="spleen"))
    assert dataset_of(tmp_path / "Task12_Mine") == "Dataset012_Mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Spleen"}, "TaskNN_Name"),
        ({"name": "Task09_My_Spleen"}, "one underscore"),
        ({"without": ("imagesTs",)}, "imagesTs"),
        ({"without": ("labelsTr",)}, "labelsTr"),
        ({"modality": None}, "modality"),
        ({"training": None}, "training"),
        ({"cases": 4}, "4 cases"),
    ],
)
def test_what_nnunet_would_not_take_is_an_error_that_says_why(make_task, options, message):
    with pytest.raises(UserError, match=message):
        dataset_of(make_task(**options))


def test_a_missing_folder_and_a_broken_json_are_errors(make_task, tmp_path):
    with pytest.raises(UserError, match="Task01_None"):
        dataset_of(tmp_path / "Task01_None")
    folder = make_task()
    for content in ("{", "null"):
        (folder / "dataset.json").write_text(content)
        with pytest.raises(UserError, match="dataset.json"):
            dataset_of(folder)
