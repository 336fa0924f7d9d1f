"""The place of the results of an archive: a folder, or object storage by its URL."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from focaldiffusion.errors import InputError
from focaldiffusion.io.results import METADATA_FILE
from focaldiffusion.io.staging import file_errors_named, recover, write_whole
from focaldiffusion.packages import OPTIONAL


def is_remote(path: str) -> bool:
    """Whether a path is a URL, which fsspec opens."""
    return "://" in path


@dataclass(frozen=True)
class Storage:
    """A folder of results, one folder in it for each key.

    Attributes:
        root: path of the folder; or a URL that fsspec opens, such as `s3://bucket/results`.
    """

    root: str

    @property
    def folder(self) -> Path | None:
        """The folder; None for object storage."""
        return None if is_remote(self.root) else Path(self.root)

    def names(self) -> set[str]:
        """Names of all that the place holds, which may be incomplete in object storage."""
        if self.folder is not None:
            if not self.folder.is_dir():
                return set()
            return {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        self._files.invalidate_cache()
        if not self._files.exists(self.root):
            return set()
        return {PurePosixPath(name).name for name in self._files.ls(self.root, detail=False)}

    def read(self, *parts: str) -> bytes | None:
        """Content of a file; None if it is absent.

        Args:
            parts: the names below the root.
        """
        try:
            if self.folder is not None:
                return self.folder.joinpath(*parts).read_bytes()
            return self._files.cat_file(self._url(*parts))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def metadata(self, key: str) -> dict[str, Any] | None:
        """Content of the `metadata.json` of a key; None where results are absent or incomplete."""
        if self.folder is not None:
            recover(self.folder / key)  # the earlier results of a killed process
        text = self.read(key, METADATA_FILE)
        if text is None:
            return None
        try:
            return dict(json.loads(text))
        except ValueError:
            raise InputError(
                f"{self.root}/{key}/{METADATA_FILE}: is not JSON. Remove the folder to make it "
                "again."
            ) from None

    def write(self, name: str, data: bytes) -> None:
        """Write a small file below the root, complete or not at all.

        Raises:
            InputError: the disk is full, or the folder cannot be written.
        """
        if self.folder is not None:
            with file_errors_named(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_whole(self.folder / name, data)
        else:
            self._files.pipe_file(self._url(name), data)

    @contextmanager
    def results(self, key: str) -> Iterator[Path]:
        """The folder that the results of a key are saved to.

        Object storage gets them when the block ends: the earlier mark of completeness goes first,
        and the new one comes last.
        """
        if self.folder is not None:
            yield self.folder / key
            return
        with tempfile.TemporaryDirectory(prefix="focaldiffusion-") as home:
            folder = Path(home) / key
            yield folder
            earlier = set()
            if self._files.exists(self._url(key)):
                self._files.invalidate_cache()
                found = self._files.ls(self._url(key), detail=False)
                earlier = {PurePosixPath(name).name for name in found}
            made = sorted(path.name for path in folder.iterdir() if path.name != METADATA_FILE)
            for name in sorted(earlier, key=lambda name: name != METADATA_FILE):
                self._files.rm_file(self._url(key, name))
            for name in (*made, METADATA_FILE):
                self._files.put_file(str(folder / name), self._url(key, name))

    @contextmanager
    def saved(self, key: str) -> Iterator[Path]:
        """The folder of the results of a key; those of object storage are copied for the block."""
        if self.folder is not None:
            yield self.folder / key
            return
        with tempfile.TemporaryDirectory(prefix="focaldiffusion-") as home:
            self._files.get(f"{self._url(key)}/", f"{home}/{key}/", recursive=True)
            yield Path(home) / key

    def _url(self, *parts: str) -> str:
        return "/".join((self.root.rstrip("/"), *parts))

    @cached_property
    def _files(self) -> Any:
        return _opened(self.root)


@contextmanager
def local_frames(frames: Sequence[str]) -> Iterator[str | list[str]]:
    """The frames of an entry as a source for `open_stack`: remote ones are copied for the block.

    Args:
        frames: see `Entry`.

    Raises:
        InputError: a remote file cannot be read.
    """
    if not any(map(is_remote, frames)):
        yield frames[0] if len(frames) == 1 else list(frames)
        return
    with tempfile.TemporaryDirectory(prefix="focaldiffusion-") as home:
        try:
            files = [_copied(frame, Path(home)) for frame in frames]
        except (OSError, ValueError) as error:
            raise InputError(
                f"{frames[0]}: cannot be copied here ({error or type(error).__name__}). Check the "
                "address and the rights of this machine."
            ) from error
        yield files[0] if len(files) == 1 else files


def _copied(frame: str, home: Path) -> str:
    """A local copy of a remote file or folder, with a `stack.json` beside it; else the path."""
    if not is_remote(frame):
        return frame
    files, target = _opened(frame), home / PurePosixPath(frame).name
    if files.isdir(frame):
        files.get(frame.rstrip("/") + "/", f"{target}/", recursive=True)
        return str(target)
    if target.exists():
        raise ValueError("two frames have the same name")
    files.get_file(frame, str(target))
    sidecar = f"{frame.rpartition('/')[0]}/stack.json"
    if not (home / "stack.json").exists() and files.exists(sidecar):
        files.get_file(sidecar, str(home / "stack.json"))
    return str(target)


def _opened(url: str) -> Any:
    """The file system of a URL.

    Raises:
        InputError: its package is missing.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError:
        raise InputError(
            f"{url}: needs a package for this kind of storage; for s3:// it is s3fs: "
            f"{OPTIONAL['s3fs'].install}"
        ) from None
    except ValueError as error:
        raise InputError(f"{url}: {error}. Expected a URL that fsspec knows.") from None
