"""A place for files: a directory of this machine or a folder of an S3 server, through fsspec.

A file is there whole under its name, or it is not there. All of it blocks: call it in a thread.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import fsspec

from tasks.model.snapshots import S3

PART_BYTES = 8 << 20
"""What an S3 server is sent at once; a file may have 10,000 of them."""
_CONNECTION = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}


class Unstorable(Exception):
    """A place that does not take, give or list files; the message says where and why."""


class Store(ABC):
    """Files in one folder, by their names; every method raises Unstorable."""

    def __init__(self, files: Any, folder: str, url: str) -> None:  # noqa: ANN401 - fsspec is untyped
        self._files = files
        self._folder = folder
        self._url = url

    def url(self, name: str) -> str:
        """Say where a file is."""
        return f"{self._url}/{name}"

    def names(self) -> tuple[str, ...]:
        """List the files; none where there is no such folder yet."""
        with self._translated("listed"), suppress(FileNotFoundError):
            paths = self._files.ls(self._folder, detail=False)
            return tuple(sorted(str(path).rpartition("/")[2] for path in paths))
        return ()

    def read(self, name: str) -> bytes:
        """Read a small file."""
        with self._translated("read"):
            content: bytes = self._files.cat_file(f"{self._folder}/{name}")
        return content

    def copy(self, name: str, file: IO[bytes]) -> None:
        """Copy a file of any size into an open one."""
        with self._translated("read"), self._files.open(f"{self._folder}/{name}", "rb") as source:
            shutil.copyfileobj(source, file, PART_BYTES)

    def remove(self, name: str) -> None:
        """Remove a file; none is no error."""
        with self._translated("cleared"), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._folder}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self.writing(name) as file:
            file.write(content)

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file that is there once the block has ended well, and else is not."""

    @abstractmethod
    def end_unfinished(self, before: datetime) -> tuple[str, ...]:
        """Remove what was being written before that time by runs that were killed; names it."""

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # An OSError, or whatever one of the S3 client's libraries raises.
            if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _S3:
                raise
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            msg = f"{self._url} cannot be {what} ({said})"
            raise Unstorable(msg) from error


_S3 = frozenset({"aiobotocore", "aiohttp", "botocore", "s3fs"})


class Directory(Store):
    """A directory of mode 0700, with files of mode 0600."""

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Write beside the name, and rename once all of it is on the disk."""
        return self._writing(Path(self._folder), name)

    @contextmanager
    def _writing(self, folder: Path, name: str) -> Iterator[IO[bytes]]:
        partial = folder / f".{name}.{os.getpid()}.partial"
        with self._translated("written"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                with os.fdopen(
                    os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
                ) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(folder / name)
                _sync(folder)
            finally:
                partial.unlink(missing_ok=True)

    def names(self) -> tuple[str, ...]:
        """List the files; what is being written is none yet."""
        return tuple(name for name in super().names() if not name.startswith("."))

    def end_unfinished(self, before: datetime) -> tuple[str, ...]:
        """Remove parts that have not grown since."""
        ended = []
        with self._translated("cleared"):
            for partial in sorted(Path(self._folder).glob(".*.partial")):
                if partial.stat().st_mtime < before.timestamp():
                    partial.unlink(missing_ok=True)
                    ended.append(partial.name.removeprefix(".").rsplit(".", 2)[0])
        return tuple(ended)


class Bucket(Store):
    """A folder of an S3 server's bucket; credentials are found as Amazon's own tools find them."""

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Upload in parts, which the server joins at the end, or drops."""
        return self._writing(name)

    @contextmanager
    def _writing(self, name: str) -> Iterator[IO[bytes]]:
        with self._translated("written"):
            file = self._files.open(
                f"{self._folder}/{name}", "wb", block_size=PART_BYTES, autocommit=False
            )
            try:
                yield file
                file.close()
                file.commit()
            except BaseException:
                with suppress(Exception):  # what went wrong first is what is told
                    file.discard()
                file.closed = True  # or closing it, when it is collected, would send the rest
                raise

    def end_unfinished(self, before: datetime) -> tuple[str, ...]:
        """Abort uploads that have begun before; nobody lists them, and their parts are paid for."""
        bucket, _, folder = self._folder.partition("/")
        ended = []
        with self._translated("cleared of unfinished uploads"):
            found = self._files.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=f"{folder}/"
            )
            for upload in found.get("Uploads", []):
                if upload["Initiated"] < before:
                    self._files.call_s3(
                        "abort_multipart_upload",
                        Bucket=bucket,
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    )
                    ended.append(upload["Key"].rpartition("/")[2])
        return tuple(ended)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_store(place: str, folder: str, endpoint: str | None = None) -> Store:
    """Open a place's folder, which need not be there; nothing is asked or written yet."""
    if not place.startswith(S3):
        path = f"{place}/{folder}"
        return Directory(fsspec.filesystem("file"), path, path)
    files = fsspec.filesystem(
        "s3",
        endpoint_url=endpoint,
        config_kwargs=_CONNECTION,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    return Bucket(files, f"{place.removeprefix(S3)}/{folder}", f"{place}/{folder}")
