"""pytest fixtures with real Kubernetes nodes, shared by the tests of a module.

    pytest_plugins = ["tests.lab.kubernetes.fixtures"]
    pytestmark = [pytest.mark.lab]

    def test_it(kubernetes: KubernetesCluster) -> None:
        kubernetes.first.run("crictl ps")

`kubernetes` is three control planes that `kubeadm` made; a test leaves them as it found them, or
the module has one that breaks things last. Each test runs on 1.37.2 with etcd 3.7.3, and in the
chaos set on 1.34.4 with 3.6.16, too. `start_nodes` starts bare nodes for one test alone.

The programs of a release are built beside the first tests and waited for outside a test's time
limit; where they cannot be had, the test is skipped with the reason. Modules with such tests run
last (`tests/conftest.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.lab.builds import Builds
from tests.lab.errors import LabError
from tests.lab.kubernetes import node
from tests.lab.kubernetes.cluster import KubernetesCluster
from tests.lab.kubernetes.programs import (
    ETCD,
    KUBERNETES_1_37,
    get_kubernetes,
    is_built,
)
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason

StartNodes = Callable[..., Lab]
"""Starts a lab of bare nodes; takes what `Lab.start` takes."""

_BUILDS = Builds("tests.lab.kubernetes.programs", "get_kubernetes")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each release: all but one of them only in the chaos set."""
    if "kubernetes_version" in metafunc.fixturenames:
        cases = [
            pytest.param(v, id=v, marks=() if v == KUBERNETES_1_37 else pytest.mark.chaos)
            for v in ETCD
        ]
        metafunc.parametrize("kubernetes_version", cases, indirect=True, scope="module")


@pytest.fixture(scope="module")
def kubernetes_version(request: pytest.FixtureRequest) -> str:
    """Tell the release that a test's nodes run; skips where there can be none."""
    version = str(request.param)
    if (reason := _unavailable_reason()) is not None:
        pytest.skip(reason)
    if (reason := _reason_not_built(version)) is not None:
        pytest.skip(reason)
    return version


@pytest.fixture(scope="module")
def kubernetes(kubernetes_version: str) -> Iterator[KubernetesCluster]:
    """Give a module's tests three control planes of a stacked cluster."""
    with Lab.start(kubernetes=kubernetes_version, hosts=3) as lab:
        yield KubernetesCluster.form(lab)


@pytest.fixture
def start_nodes(kubernetes_version: str) -> Iterator[StartNodes]:
    """Start labs of bare nodes that end with the test."""
    with ExitStack() as labs:
        yield lambda *name, **options: labs.enter_context(
            Lab.start(*name, **{"kubernetes": kubernetes_version, **options})
        )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to build what the tests will need, beside the first of them."""
    if session.config.option.collectonly or _unavailable_reason():
        return
    needed = {_version(item) for item in session.items}
    _BUILDS.begin(session, [v for v in ETCD if v in needed and not is_built(v)])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for a build before the test's time begins; what went wrong is told by its fixture."""
    version = _version(item)
    if version is not None and not is_built(version) and not _unavailable_reason():
        _reason_not_built(version)
    return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End a build that no test has waited for; the next one goes on from there."""
    _BUILDS.end(session)


@cache
def _reason_not_built(version: str) -> str | None:
    """Build a release unless that is done; what went wrong is not tried again in a session."""
    try:
        get_kubernetes(version)
    except LabError as error:
        return str(error)
    return None


def _unavailable_reason() -> str | None:
    return unavailable_reason() or node.unavailable_reason()


def _version(item: pytest.Item) -> str | None:
    specification = getattr(item, "callspec", None)
    return specification.params.get("kubernetes_version") if specification else None
