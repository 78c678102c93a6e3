"""Which of etcd's versions a test's labs run: CI takes one, the chaos set the other three.

Every integration test that starts a lab (and does not say `one_etcd`, because its versions are its
own) gets a parameter `etcd_version`, which is the default of what its labs run. The releases that
are built are begun when collecting has ended, beside the first tests, and waited for before the
test that needs them, outside its time limit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

import pytest

from tests.lab.builds import Builds
from tests.lab.errors import LabError
from tests.lab.etcd_programs import CACHE, DEFAULT, ETCD_3_6, ETCD_3_7, INSTALLED, get_programs
from tests.lab.go_modules import RELEASES

VERSIONS = {"3.7": ETCD_3_7, "3.6": ETCD_3_6, "3.5": DEFAULT, "3.4": INSTALLED}

SINCE_3_6 = frozenset({ETCD_3_7, ETCD_3_6})
"""Of these; the machine's own is called `installed`, which no comparison of texts finds older."""

IN_CI = {
    "3.7": (
        "test_bootstrap",
        "test_dead_hosts",
        "test_members",
        "test_restarts",
        "test_rotation",
    ),
    "3.6": ("test_exclusion", "test_truth_of_health"),
    "3.4": ("test_approval", "test_dependents", "test_interruption"),
}
"""The modules that CI runs on a version; the others run on 3.5."""

_BUILDS = Builds("tests.lab.etcd_programs", "get_programs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each version: all but one of them only in the chaos set."""
    if "etcd_version" not in metafunc.fixturenames:
        return
    folder, _, module = metafunc.module.__name__.rpartition(".")
    if folder != "tests.integration" or metafunc.definition.get_closest_marker("one_etcd"):
        return
    chosen = next((version for version, modules in IN_CI.items() if module in modules), "3.5")
    cases = [
        pytest.param(version, id=name, marks=() if name == chosen else pytest.mark.chaos)
        for name, version in VERSIONS.items()
    ]
    metafunc.parametrize("etcd_version", cases, indirect=True, scope="module")


@pytest.fixture(scope="module")
def etcd_version(request: pytest.FixtureRequest) -> str:
    """Tell the version that labs run unless a test names one."""
    return str(getattr(request, "param", DEFAULT))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to build what the tests will need, beside the first of them."""
    if session.config.option.collectonly or os.geteuid() != 0:
        return
    needed = {_version(item) for item in session.items}
    _BUILDS.begin(session, [v for v in VERSIONS.values() if v in needed and _is_to_be_built(v)])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for a build before the test's time begins; what went wrong is told by its fixture."""
    version = _version(item)
    if version is not None and _is_to_be_built(version):
        with contextlib.suppress(LabError):
            get_programs(version)
    return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End a build that no test has waited for; it cleans up when it is interrupted."""
    _BUILDS.end(session)


def _version(item: pytest.Item) -> str | None:
    specification = getattr(item, "callspec", None)
    return specification.params.get("etcd_version") if specification else None


def _is_to_be_built(version: str) -> bool:
    return RELEASES.fullmatch(version) is not None and not (CACHE / version).is_dir()
