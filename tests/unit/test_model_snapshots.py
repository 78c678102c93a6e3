"""The inventory's rules for snapshots, and the manifest beside each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.model.snapshots import (
    SnapshotRules,
    manifest_name,
    parse_manifest,
    snapshot_name,
)
from tests.unit.test_plans_retention import taken

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
AT = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ({"store": "backups"}, "store", "neither an absolute directory nor s3://BUCKET/FOLDER"),
        ({"store": "ftp://x"}, "store", "neither an absolute directory"),
        ({"store": "s3://A"}, "store", "neither an absolute directory"),
        ({"store": "s3://backups/x", "endpoint": "s3.example.org"}, "endpoint", "pattern"),
        ({"store": "/b", "endpoint": "https://s3.example.org"}, "", "goes with a store that"),
        ({"recipients": ["AGE-SECRET-KEY-1ABC"]}, "recipients.0", "no recipient of age's"),
        ({"recipients": [f"{RECIPIENT}x"]}, "recipients.0", "no recipient of age's"),
        ({"keep": {"hourly": -1}}, "keep.hourly", "greater than or equal"),
        ({"keep": {"yearly": 1}}, "keep.yearly", "not permitted"),
    ],
)
def test_a_rule_that_is_not_understood_names_its_field(
    content: dict[str, Any], field: str, said: str
) -> None:
    """Nothing of it is used."""
    with pytest.raises(ValidationError) as refused:
        SnapshotRules.model_validate(content)
    (error,) = refused.value.errors()
    assert ".".join(map(str, error["loc"])) == field
    assert said in error["msg"]


def test_rules_for_a_directory_and_for_s3_are_taken() -> None:
    """A slash at the end is no other place."""
    SnapshotRules(recipients=(RECIPIENT, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"))
    assert SnapshotRules(store="/var/backups/").store == "/var/backups"
    assert SnapshotRules(store="s3://b.ucket", endpoint="http://10.0.0.9:9000").endpoint


def test_names_tell_cluster_revision_and_time() -> None:
    """And the manifest stands beside, whether the snapshot is encrypted or not."""
    bare = snapshot_name("main-2", 17, AT, encrypted=False)
    assert bare == "main-2-r17-20260301T123005Z.db"
    assert snapshot_name("main-2", 17, AT, encrypted=True) == f"{bare}.age"
    assert manifest_name(f"{bare}.age") == manifest_name(bare)
    assert manifest_name(bare) == "main-2-r17-20260301T123005Z.json"


def test_a_manifest_is_read_as_it_was_written_and_nothing_else_is() -> None:
    """What others have put there is left alone, and no name leads out of the folder."""
    one = taken(AT)
    assert parse_manifest(one.render()) == one
    assert dict(one), "Prefect looks into what a step returns, and a field `keys` is in its way"
    assert parse_manifest(b"{}") is None
    assert parse_manifest(b"\xff") is None
    assert parse_manifest(one.model_copy(update={"file": "../other.db"}).render()) is None
