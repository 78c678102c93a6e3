"""What the UI may tell a worker: names of clusters, and no path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.engine.bounds import refuse_paths
from tasks.model.errors import Refused


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cluster": "/etc/passwd"}, "cluster: /etc/passwd is no name of an inventory"),
        ({"cluster": "../main"}, "no name"),
        ({"cluster": "main.yaml"}, "no name"),
        ({"cluster": "~"}, "no name"),
        ({"clusters": ["main", "a/b"]}, "clusters: a/b is no name"),
        ({"json_path": "/home/worker/.bashrc"}, "json_path: a file of the worker's"),
        ({"cluster": "new", "output": "x.yaml"}, "output: a file"),
        ({"cluster": "new", "key": "/etc/shadow"}, "key: /etc/shadow is not in"),
        ({"cluster": "new", "known_hosts": "~/.ssh/../.bashrc"}, "known_hosts: "),
    ],
)
def test_a_path_is_refused(given: dict[str, Any], said: str) -> None:
    """With the parameter, and that the command line takes it."""
    with pytest.raises(Refused, match="Nothing was changed") as refused:
        refuse_paths(given)
    assert said in str(refused.value)


def test_a_link_that_leads_out_of_the_place_for_keys_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is there is taken."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/out").symlink_to("/etc/shadow")
    with pytest.raises(Refused, match="is not in"):
        refuse_paths({"key": "~/.ssh/out"})
    refuse_paths({"key": "~/.ssh/id", "known_hosts": "~/.ssh/known_hosts"})


def test_names_are_taken() -> None:
    """And so is nothing at all."""
    refuse_paths({"cluster": "main-2.eu", "clusters": None, "json_path": None, "hosts": ["a=b"]})
    refuse_paths({"clusters": ["a", "b"]})
