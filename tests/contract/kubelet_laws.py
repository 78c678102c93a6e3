"""What any kubelet does with the files in its directory: one suite for the stand-in and the real.

Procedures on stacked clusters rest on these laws. The pod that is put in and taken out is called
probe; what runs of it is told by its process's words.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 90.0
"""How long anything may take that takes up to 20 s on an idle machine."""


class Kubelet(Protocol):
    """A kubelet and its node, with nothing of the probe's there."""

    manifests: str
    aside: str
    pods: str
    """Where each pod has a directory, by its uid."""
    quiet: float
    """For how many seconds nothing must happen, where the law is that nothing does."""

    def sh(self, script: str, text: str | None = None) -> str:
        """Run a script there, which must end well, and return what it prints."""

    def pod(self, name: str) -> str:
        """Render the probe's manifest, by the name that its process shall have."""

    def processes(self) -> dict[int, str]:
        """Map the ids of the probe's processes to their names."""

    def restart(self) -> None:
        """Restart the kubelet alone."""

    def api_away(self) -> None:
        """Take its API server away: nobody answers."""

    def api_back(self) -> None:
        """Let its API server be ready again."""


def put(kubelet: Kubelet, name: str, text: str) -> None:
    """Write a file elsewhere on the same file system and rename it into the directory."""
    new = f"{kubelet.aside}/new"
    kubelet.sh(f"cat > {new} && mv {new} '{kubelet.manifests}/{name}'", text)


def take(kubelet: Kubelet, name: str) -> None:
    """Move a file out of the directory."""
    kubelet.sh(f"mv '{kubelet.manifests}/{name}' {kubelet.aside}/")


def give_back(kubelet: Kubelet, name: str) -> None:
    """Move a file that was taken into the directory again."""
    kubelet.sh(f"mv '{kubelet.aside}/{name}' {kubelet.manifests}/")


def eventually(is_so: Callable[[], bool], seconds: float = SECONDS) -> float:
    """Wait for something to be so, and return how many seconds that took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds
        time.sleep(0.1)
    return time.monotonic() - began


def stays(is_so: Callable[[], bool], seconds: float) -> None:
    """See that something is so all the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert is_so()
        time.sleep(0.3)


def running(kubelet: Kubelet) -> list[str]:
    """List the names of the probe's processes."""
    return sorted(kubelet.processes().values())


def process(kubelet: Kubelet) -> int | None:
    """Tell the id of the probe's process; None when there is none."""
    return next(iter(kubelet.processes()), None)


def begin(kubelet: Kubelet, name: str = "a") -> int | None:
    """Put the probe in, wait until it runs, and return its process's id."""
    put(kubelet, "probe.yaml", kubelet.pod(name))
    eventually(lambda: running(kubelet) == [name])
    return process(kubelet)


def kill(kubelet: Kubelet) -> float:
    """Kill the probe's process, and tell after how many seconds another one runs."""
    before = process(kubelet)
    kubelet.sh(f"kill -KILL {before}")
    return eventually(lambda: process(kubelet) not in (None, before))


class KubeletLaws:
    """A subclass gives the fixture `kubelet`."""

    @pytest.mark.parametrize("name", ["probe.yaml.backup", "f"])
    def test_any_name_runs(self, kubelet: Kubelet, name: str) -> None:
        """A copy that somebody forgot is a pod like others."""
        put(kubelet, name, kubelet.pod("a"))
        eventually(lambda: running(kubelet) == ["a"])

    def test_dot_files_and_broken_ones_do_not_run(self, kubelet: Kubelet) -> None:
        """Nothing comes of a name that begins with a dot, of a directory, of half a file."""
        put(kubelet, ".probe.yaml", kubelet.pod("a"))
        put(kubelet, "half.yaml", kubelet.pod("b")[:40])
        kubelet.sh(f"mkdir {kubelet.manifests}/inner && touch {kubelet.manifests}/empty.yaml")
        stays(lambda: running(kubelet) == [], kubelet.quiet)

    def test_of_two_files_the_last_name_wins(self, kubelet: Kubelet) -> None:
        """A later file of the same pod takes its place; an earlier one does not."""
        begin(kubelet)
        put(kubelet, "probe.yaml.old", kubelet.pod("b"))
        eventually(lambda: running(kubelet) == ["b"])
        put(kubelet, "a-probe.yaml", kubelet.pod("c"))
        stays(lambda: running(kubelet) in (["b"], []), kubelet.quiet)
        eventually(lambda: running(kubelet) == ["b"])

    def test_a_comment_restarts_nothing(self, kubelet: Kubelet) -> None:
        """A pod is what was parsed, not the file's bytes."""
        before = begin(kubelet)
        put(kubelet, "probe.yaml", f"# a word\n{kubelet.pod('a')}")
        stays(lambda: process(kubelet) == before, kubelet.quiet)

    def test_a_pod_ends_with_its_file(self, kubelet: Kubelet) -> None:
        """Its process ends, then its directory goes."""
        begin(kubelet)
        take(kubelet, "probe.yaml")
        eventually(lambda: process(kubelet) is None)

    def test_another_pod_of_the_name_begins_2_s_after_the_old_one(self, kubelet: Kubelet) -> None:
        """Put in when all of the old one is gone, it need not wait for the kubelet's next look."""
        begin(kubelet)
        there = kubelet.sh(f"ls {kubelet.pods}").split()
        take(kubelet, "probe.yaml")
        eventually(lambda: len(kubelet.sh(f"ls {kubelet.pods}").split()) < len(there))
        time.sleep(2)
        put(kubelet, "probe.yaml", kubelet.pod("b"))
        assert eventually(lambda: running(kubelet) == ["b"]) < 8

    def test_the_back_off_is_in_the_kubelets_memory(self, kubelet: Kubelet) -> None:
        """Killed once it is back at once, killed twice it waits, unless the kubelet is new."""
        begin(kubelet)
        assert kill(kubelet) < 6 < kill(kubelet)
        kubelet.restart()
        assert kill(kubelet) < 6

    def test_processes_outlive_the_kubelets_restart(self, kubelet: Kubelet) -> None:
        """A restart with its API server there restarts nothing."""
        before = begin(kubelet)
        kubelet.restart()
        stays(lambda: process(kubelet) == before, kubelet.quiet)

    def test_started_without_its_api_server_it_stops_nothing(self, kubelet: Kubelet) -> None:
        """A manifest that is taken out then changes nothing, until its API server is back."""
        before = begin(kubelet)
        kubelet.api_away()
        kubelet.restart()
        take(kubelet, "probe.yaml")
        stays(lambda: process(kubelet) == before, kubelet.quiet)
        kubelet.api_back()
        eventually(lambda: process(kubelet) is None)
