"""Frames and results in object storage, on a server of moto's; folders that are watched."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from archives import report_of, results_of, workshop_in, write_archive
from command_line import names
from plant import command, run, write_stack

from focaldiffusion.archive.manifest import Entry
from focaldiffusion.archive.storage import Storage, local_frames
from focaldiffusion.archive.work import Task
from focaldiffusion.errors import InputError

FAST = ("--device", "cpu", "--align", "off", "--image-only", "--quiet")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket on a server of this machine."""
    if find_spec("moto") is None or find_spec("s3fs") is None:
        pytest.skip("moto's server or s3fs is not installed: pip install 'moto[server]' s3fs")
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"museum-{port}"  # moto keeps the buckets of earlier servers
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_batch_into_object_storage_equals_one_into_a_folder(bucket: str, tmp_path: Path) -> None:
    import s3fs

    manifest, out = write_archive(tmp_path / "archive", 2, broken=(1,)), tmp_path / "out"
    assert run("batch", manifest, "--output", out, *FAST) == 1
    far = ("batch", manifest, "--output", f"{bucket}/out", *FAST, "--workers", "1")
    assert run(*far) == 1
    files = s3fs.S3FileSystem()
    files.get(f"{bucket}/out/", f"{tmp_path / 'copy'}/", recursive=True)
    assert results_of(tmp_path / "copy") == results_of(out)
    rows = report_of(tmp_path / "copy")
    assert [row["status"] for row in rows.values()] == ["done", "failed"]

    def changed() -> object:
        mark = f"{bucket}/out/plant 0/metadata.json"
        return files.info(mark, refresh=True)["LastModified"]

    # Nothing is due; without the report, complete results are still known.
    made = changed()
    assert run(*far) == 1
    files.rm_file(f"{bucket}/out/report.csv")
    assert run(*far) == 1
    assert changed() == made


def test_a_set_in_object_storage_is_filled_from_results_there(bucket: str, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    manifest = write_archive(tmp_path / "archive", 1)
    far = ("batch", manifest, "--output", f"{bucket}/out", *FAST, "--workers", "1")
    assert run(*far) == 0
    for _ in range(2):  # filled from the results; nothing is due
        assert run(*far, "--zarr", f"{bucket}/all.zarr") == 0
        root = zarr.open_group(f"{bucket}/all.zarr", mode="r")
        assert root["plant 0"]["all_in_focus"].shape == (64, 96, 3)
        assert root["plant 0"].attrs["metadata"]["batch"]["key"] == "plant 0"


def test_frames_come_from_object_storage(bucket: str, tmp_path: Path) -> None:
    import s3fs

    stack = write_stack(tmp_path / "plant")
    s3fs.S3FileSystem().put(str(stack), f"{bucket}/in/plant", recursive=True)
    here = workshop_in(tmp_path / "out").open()
    urls = tuple(f"{bucket}/in/plant/frame_{number}.png" for number in range(3))
    for key, frames in (
        ("local", (str(stack),)),
        ("folder", (f"{bucket}/in/plant",)),
        ("files", urls),
    ):
        line = here.run(Task(Entry(key, frames), "1"))
        assert (line.status, line.grade) == ("done", "calibrated"), line.error
    images = {
        (tmp_path / "out" / key / "all_in_focus.png").read_bytes()
        for key in ("local", "folder", "files")
    }
    assert len(images) == 1
    line = here.run(Task(Entry("absent", (f"{bucket}/in/absent.png", f"{bucket}/in/b.png")), "1"))
    assert line.status == "failed"
    assert "cannot be copied here" in line.error


def test_results_in_object_storage_are_replaced_as_a_whole(tmp_path: Path) -> None:
    storage = Storage(f"memory://{tmp_path.name}")
    for names_of in (("a.png", "b.png"), ("a.png",)):
        with storage.results("key") as folder:
            folder.mkdir()
            for name in (*names_of, "metadata.json"):
                (folder / name).write_text(f'{{"{name}": {len(names_of)}}}')
    assert storage.metadata("key") == {"metadata.json": 1}
    assert storage.read("key", "b.png") is None
    assert storage.names() == {"key"}
    assert storage.metadata("absent") is None


def test_an_unknown_kind_of_storage_is_named() -> None:
    with pytest.raises(InputError, match="Expected a URL that fsspec knows"):
        Storage("nowhere://bucket").names()
    with (
        pytest.raises(InputError, match="Expected a URL that fsspec knows"),
        local_frames(("nowhere://frame",)),
    ):
        pass


def test_a_watched_folder_is_stacked_as_it_fills(tmp_path: Path) -> None:
    rig, out = tmp_path / "rig", tmp_path / "out"
    rig.mkdir()
    first = write_stack(tmp_path / "first")
    child = subprocess.Popen(
        command("batch", "--watch", rig, "--rest-s", "1", "--output", out, *FAST, "--workers", "1"),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for name in ("scan 1", "scan 2"):
        shutil.copytree(first, rig / name)
        while child.poll() is None and not (out / name / "metadata.json").exists():
            time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate()
    assert (child.returncode, error) == (
        130,
        b"interrupted; no unfinished results are left behind.\n",
    )
    assert list(report_of(out)) == ["scan 1", "scan 2"]
    assert names(out / "scan 1") == names(out / "scan 2")
