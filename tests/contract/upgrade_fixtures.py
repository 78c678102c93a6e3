"""The cluster of tests of upgrades, as a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.etcd_real import RealCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RealCluster]:
    """Make a cluster of three; the test says of which release, and starts it."""
    with closing(RealCluster(Path("/bin/false"), tmp_path)) as made:
        yield made
