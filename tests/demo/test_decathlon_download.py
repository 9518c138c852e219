"""Download of Decathlon tasks, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nnunet_nacl.demo.decathlon_download import BASE_URL_VARIABLE, MD5, download_task
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
        self.content = GOOD
        self.status = 200
        self.send_at_most: int | None = None
        self.knows_ranges = True
        self.requests: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                if outer.status != 200 or self.path != f"/{TASK}.tar":
                    return self.send_error(outer.status if outer.status != 200 else 404)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and outer.knows_ranges else 0
                if start and start >= len(outer.content):
                    return self.send_error(416)
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if outer.send_at_most is None else body[: outer.send_at_most])

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
        return download_task(TASK, tmp_path)

    return run


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_good_archive_is_unpacked_and_removed(fetch, tmp_path):
    folder = fetch()
    assert folder == tmp_path / TASK
    assert (folder / "imagesTr" / "case.nii.gz").read_bytes() == bytes(range(256)) * 4000
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["case.nii.gz", "dataset.json"]
    assert left_in(tmp_path) == [TASK]


def test_what_is_there_is_not_downloaded_again(fetch, server):
    fetch()
    fetch()
    assert len(server.requests) == 1


def test_a_wrong_md5_is_named_and_nothing_is_unpacked(fetch, tmp_path):
    with pytest.raises(UserError, match=f"{md5(GOOD)}.*{'0' * 32}"):
        fetch("0" * 32)
    assert left_in(tmp_path) == []


def test_a_broken_connection_is_continued(fetch, server, tmp_path):
    server.send_at_most = 300_000
    with pytest.raises(UserError, match=f"after 300000 of {len(GOOD)} bytes.*run again"):
        fetch()
    assert left_in(tmp_path) == [f"{TASK}.tar.part"]
    server.send_at_most = None
    assert fetch().is_dir()
    assert server.requests == [None, "bytes=300000-"]


def test_a_server_without_ranges_starts_over(fetch, server, tmp_path):
    server.knows_ranges = False
    (tmp_path / f"{TASK}.tar.part").write_bytes(GOOD[:1000])
    assert fetch().is_dir()


@pytest.mark.parametrize("beginning", [b"x" * 1000, GOOD + b"more", b"y" * len(GOOD)], ids=["other", "longer", "full"])
def test_a_wrong_beginning_is_dropped(fetch, tmp_path, beginning):
    (tmp_path / f"{TASK}.tar.part").write_bytes(beginning)
    with pytest.raises(UserError, match="It was removed; run again"):
        fetch()
    assert fetch().is_dir()


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
    assert (tmp_path / TASK / "mine.txt").read_text() == "keep" and server.requests == []
