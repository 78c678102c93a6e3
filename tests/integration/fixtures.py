"""Fixtures of the integration tests; used through `pytest_plugins`, as the lab's are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.runbooks import Prefect, prefect_server


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """Start a Prefect server for the module."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        yield running
