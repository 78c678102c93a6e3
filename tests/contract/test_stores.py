"""A directory and an S3 server keep one promise: a file is whole under its name, or not there."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyrage
import pytest

from tasks.store.places import Store, Unstorable, open_store
from tasks.store.streaming import store_stream
from tests.contract.s3_server import ENVIRONMENT, s3_server

BUCKET = "backups"
PART = bytes(range(256)) * 128
"""As long as a part of etcd's."""
BOUND_KIBIBYTES = 64 << 10
"""What a stream of any length may need beside what the process had."""


class Broken(OSError):
    """What a test's stream ends with."""


async def parts(count: int, broken_at: int | None = None) -> AsyncIterator[bytes]:
    """Stream parts; raises Broken before the one of that number."""
    for number in range(count):
        if number == broken_at:
            raise Broken
        yield PART


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run one server for the module."""
    with s3_server(BUCKET) as url:
        yield url


@pytest.fixture(params=["directory", "s3"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Store]:
    """Open an empty folder of one kind or the other, each time anew."""
    if request.param == "directory":
        return lambda: open_store(str(tmp_path / "snapshots"), "main")
    url = request.getfixturevalue("s3")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return lambda: open_store(f"s3://{BUCKET}/{tmp_path.name}", "main", url)


def read(store: Store, name: str) -> bytes:
    """Read a file as another process does, past the store."""
    url = store.url(name)
    options: dict[str, Any] = {}
    if url.startswith("s3://"):
        options = {"endpoint_url": store._files.endpoint_url, "use_listings_cache": False}
    with fsspec.open(url, "rb", **options) as file:
        content: bytes = file.read()
    return content


async def test_what_is_streamed_is_there_once_it_is_whole(opened: Callable[[], Store]) -> None:
    """Longer than what is sent at once, and much shorter; the same name again is the new one."""
    store = opened()
    assert store.names() == ()
    await store_stream(store, "long.db", parts(700))
    await store_stream(store, "short.db", parts(1))
    await store_stream(store, "short.db", parts(2))
    store.write("long.json", b"{}")
    assert opened().names() == ("long.db", "long.json", "short.db")
    assert read(store, "long.db") == PART * 700
    assert store.read("short.db") == PART * 2
    store.remove("long.db")
    store.remove("long.db")
    assert opened().names() == ("long.json", "short.db")


@pytest.mark.parametrize("sealed", [False, True], ids=["bare", "encrypted"])
@pytest.mark.parametrize("broken_at", [0, 3, 600])
async def test_a_stream_that_breaks_leaves_nothing(
    opened: Callable[[], Store], broken_at: int, *, sealed: bool
) -> None:
    """What broke it is raised as it was, from behind age and a thread; an older file stays."""
    store = opened()
    recipients = [str(pyrage.x25519.Identity.generate().to_public())] if sealed else []
    store.write("old.db", b"old")
    for name in ("new.db", "old.db"):
        with pytest.raises(Broken):
            await store_stream(store, name, parts(700, broken_at), recipients)
    assert opened().names() == ("old.db",)
    assert store.read("old.db") == b"old"


KILLED = """
import os, sys
from tasks.store.places import open_store
store = open_store(sys.argv[1], "main", sys.argv[2] or None)
with store.writing("half.db") as file:
    file.write(bytes(9 << 20))
    file.flush()
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_run_left_is_ended_by_a_later_one(opened: Callable[[], Store]) -> None:
    """A directory has a part, a bucket an upload that nobody lists; what is young is left alone."""
    store = opened()
    store.write("whole.db", b"whole")
    place = store.url("").removesuffix("/main/")
    endpoint = getattr(store._files, "endpoint_url", None) or ""
    killed = subprocess.run([sys.executable, "-c", KILLED, place, endpoint], check=False)
    assert killed.returncode == -9
    assert opened().names() == ("whole.db",)
    # The S3 server dates every upload at 2010.
    young = datetime(2010, 1, 1, tzinfo=UTC) if endpoint else datetime.now(UTC) - timedelta(hours=1)
    assert store.end_unfinished(young) == ()
    assert store.end_unfinished(datetime.now(UTC) + timedelta(seconds=1)) == ("half.db",)
    assert store.end_unfinished(datetime.now(UTC) + timedelta(seconds=1)) == ()
    assert opened().names() == ("whole.db",)


async def test_a_run_that_is_cancelled_leaves_nothing(opened: Callable[[], Store]) -> None:
    """The thread has ended, too, when the cancellation goes on."""
    store = opened()
    saving = asyncio.ensure_future(store_stream(store, "new.db", parts(1 << 20)))
    await asyncio.sleep(0.3)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert opened().names() == ()


async def test_what_is_encrypted_opens_with_the_key_alone(opened: Callable[[], Store]) -> None:
    """For each of several recipients, and for nobody else."""
    store = opened()
    keys = [pyrage.x25519.Identity.generate() for _ in range(3)]
    recipients = [str(key.to_public()) for key in keys[:2]]
    await store_stream(store, "sealed.db.age", parts(100), recipients)
    content = store.read("sealed.db.age")
    assert PART not in content
    for key in keys[:2]:
        assert pyrage.decrypt(content, [key]) == PART * 100
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(content, keys[2:])


async def test_a_long_stream_needs_little_memory(opened: Callable[[], Store]) -> None:
    """Of 96 MiB, encrypted, a bounded part is in memory at any time."""
    recipients = [str(pyrage.x25519.Identity.generate().to_public())]
    store = opened()
    await store_stream(store, "first.db.age", parts(700), recipients)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await store_stream(store, "long.db.age", parts(3 << 10), recipients)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < BOUND_KIBIBYTES


@pytest.mark.parametrize(
    ("place", "endpoint", "said"),
    [
        ("/proc/nowhere", None, r"/proc/nowhere/main cannot be written \(No such file"),
        ("/dev/null", None, r"/dev/null/main cannot be written \(Not a directory"),
        (f"s3://{BUCKET}/x", "http://127.0.0.1:1", r"main cannot be written \(Could not connect"),
    ],
)
async def test_a_place_that_takes_nothing_says_why(
    monkeypatch: pytest.MonkeyPatch, place: str, endpoint: str | None, said: str
) -> None:
    """One sentence with the place in it, whatever library has found out."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    store = open_store(place, "main", endpoint)
    with pytest.raises(Unstorable, match=said):
        await store_stream(store, "one.db", parts(2))


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """Also where it fills up in mid-stream; an older file stays."""
    store = open_store(str(tmp_path), "main")
    store.write("old.json", b"{}")
    (tmp_path / "main" / f".new.db.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(Unstorable, match=r"main cannot be written \(No space left on device\)"):
        await store_stream(store, "new.db", parts(700))
    assert [path.name for path in (tmp_path / "main").iterdir()] == ["old.json"]
