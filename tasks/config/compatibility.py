"""Which settings of the inventory the wanted version of etcd would refuse or ignore.

Etcd itself only warns of a variable that it does not know, into a journal that nobody reads: a
setting that silently does nothing is refused here, before anything is changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model.errors import InvalidInventory
from tasks.model.inventory import Inventory

_FOREVER = (99, 0)


@dataclass(frozen=True, slots=True)
class _Rule:
    """Variables that are of no use from one minor version (included) to another (excluded).

    `harmless` are values that mean the same as leaving the variable out; `only`, where given, are
    the values that the rule is about. A `fatal` one ends etcd, the others it passes over.
    """

    names: frozenset[str]
    reason: str
    way_out: str
    since: tuple[int, int] = (3, 4)
    until: tuple[int, int] = _FOREVER
    harmless: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    fatal: bool = False

    def forbids(self, name: str, value: str, version: tuple[int, int]) -> bool:
        """Whether this variable with this value is of no use in this version."""
        return (
            name in self.names
            and self.since <= version < self.until
            and value not in self.harmless
            and (self.only is None or value in self.only)
        )


def _names(text: str) -> frozenset[str]:
    return frozenset(f"ETCD_{name}" for name in text.split())


# `etcd --help` of 3.6.16 names each successor; 3.7.3 has none of the old names. The gates are
# values of ETCD_FEATURE_GATES, the others variables of their own.
GATES = {
    "COMPACT_HASH_CHECK_ENABLED": "CompactHashCheck",
    "ENABLE_LEASE_CHECKPOINT": "LeaseCheckpoint",
    "ENABLE_LEASE_CHECKPOINT_PERSIST": "LeaseCheckpointPersist",
    "INITIAL_CORRUPT_CHECK": "InitialCorruptCheck",
    "STOP_GRPC_SERVICE_ON_DEFRAG": "StopGRPCServiceOnDefrag",
    "TXN_MODE_WRITE_WITH_SHARED_BUFFER": "TxnModeWriteWithSharedBuffer",
}
RENAMED = (
    "BOOTSTRAP_DEFRAG_THRESHOLD_MEGABYTES COMPACT_HASH_CHECK_TIME COMPACTION_BATCH_LIMIT "
    "COMPACTION_SLEEP_INTERVAL CORRUPT_CHECK_TIME DISTRIBUTED_TRACING_ADDRESS "
    "DISTRIBUTED_TRACING_INSTANCE_ID DISTRIBUTED_TRACING_SAMPLING_RATE "
    "DISTRIBUTED_TRACING_SERVICE_NAME DOWNGRADE_CHECK_TIME ENABLE_DISTRIBUTED_TRACING MEMORY_MLOCK "
    "PEER_SKIP_CLIENT_SAN_VERIFICATION SNAPSHOT_CATCHUP_ENTRIES WARNING_APPLY_DURATION "
    "WARNING_UNARY_REQUEST_DURATION WATCH_PROGRESS_NOTIFY_INTERVAL"
).split()


def _experimental_rules() -> tuple[_Rule, ...]:
    gone, since = "is ignored: the experimental settings went away with 3.7", (3, 7)
    gates = (
        _Rule(
            _names(f"EXPERIMENTAL_{name}"),
            gone,
            f"set ETCD_FEATURE_GATES to {gate}=VALUE instead",
            since,
        )
        for name, gate in GATES.items()
    )
    renamed = (
        _Rule(_names(f"EXPERIMENTAL_{name}"), gone, f"name it ETCD_{name}", since)
        for name in RENAMED
    )
    early = (
        _Rule(
            _names(name),
            "is ignored: it came with 3.6",
            f"name it ETCD_EXPERIMENTAL_{name}, or use etcd 3.6",
            until=(3, 6),
        )
        for name in RENAMED
    )
    return (*gates, *renamed, *early)


# Sources: etcd's server/etcdmain/config.go and help.go of 3.4 to 3.6, `--help` of all four, and
# starting 3.4.23, 3.5.16, 3.5.30, 3.6.16 and 3.7.3 with each variable.
_RULES = (
    _Rule(
        _names("CONFIG_FILE"),
        "makes etcd ignore every other setting",
        "take it out and use etcd.settings",
    ),
    _Rule(
        _names("DISCOVERY DISCOVERY_SRV DISCOVERY_ENDPOINTS DISCOVERY_TOKEN"),
        "cannot be had together with ETCD_INITIAL_CLUSTER, which the runbooks set",
        "take it out; the inventory's hosts are the cluster",
    ),
    _Rule(
        _names("LISTEN_CLIENT_HTTP_URLS"),
        "takes /health and the JSON gateway, which the runbooks use, from the client URL",
        "take it out",
        since=(3, 5),
    ),
    _Rule(
        _names("ENABLE_GRPC_GATEWAY"),
        "is not true, and the runbooks talk to the JSON gateway",
        "take it out",
        harmless=frozenset({"true"}),
    ),
    _Rule(
        _names(
            "ENABLE_LOG_ROTATION LOG_ROTATION_CONFIG_JSON SOCKET_REUSE_PORT SOCKET_REUSE_ADDRESS "
            "V2_DEPRECATION EXPERIMENTAL_MEMORY_MLOCK EXPERIMENTAL_ENABLE_DISTRIBUTED_TRACING "
            "EXPERIMENTAL_DISTRIBUTED_TRACING_ADDRESS LISTEN_CLIENT_HTTP_URLS "
            "BACKEND_BBOLT_FREELIST_TYPE"
        ),
        "is ignored: it came with 3.5",
        "take it out, or use etcd 3.5",
        until=(3, 5),
    ),
    _Rule(
        _names("EXPERIMENTAL_BACKEND_BBOLT_FREELIST_TYPE"),
        "is ignored: it was renamed with 3.5",
        "name it ETCD_BACKEND_BBOLT_FREELIST_TYPE",
        since=(3, 5),
    ),
    _Rule(
        _names("PROXY"),
        "makes the host a v2 proxy, not a member",
        "take it out, or use etcd's grpc-proxy",
        until=(3, 6),
        harmless=frozenset({"off"}),
    ),
    _Rule(
        _names("DISCOVERY_FALLBACK"),
        "has the value 'proxy', with which etcd does not start: the v2 proxy is gone",
        "take it out or set it to 'exit'",
        since=(3, 6),
        only=frozenset({"proxy"}),
        fatal=True,
    ),
    _Rule(
        _names(
            "PROXY PROXY_DIAL_TIMEOUT PROXY_FAILURE_WAIT PROXY_READ_TIMEOUT "
            "PROXY_REFRESH_INTERVAL PROXY_WRITE_TIMEOUT ENABLE_V2 EXPERIMENTAL_ENABLE_V2V3"
        ),
        "is ignored: the v2 proxy and the v2 API are gone",
        "take it out",
        since=(3, 6),
    ),
    _Rule(
        _names("V2_DEPRECATION"),
        "has the value 'not-yet', with which etcd does not start",
        "take it out",
        since=(3, 6),
        only=frozenset({"not-yet"}),
        fatal=True,
    ),
    _Rule(
        _names("FEATURE_GATES"),
        "is ignored: it came with 3.6",
        "take it out, or use etcd 3.6",
        until=(3, 6),
    ),
    _Rule(
        _names("DEBUG"),
        "is ignored: it was removed with 3.5",
        "take it out and set etcd.settings.log_level to debug",
        since=(3, 5),
    ),
    _Rule(
        _names("LOG_PACKAGE_LEVELS"),
        "is ignored: it was removed with 3.5",
        "take it out and set etcd.settings.log_level",
        since=(3, 5),
    ),
    _Rule(
        _names("LOG_OUTPUT"),
        "is ignored: it was removed with 3.5",
        "name it ETCD_LOG_OUTPUTS",
        since=(3, 5),
    ),
    *_experimental_rules(),
)


def find_misfit(name: str, value: str, minor: tuple[int, int]) -> tuple[str, bool] | None:
    """Say why a variable is of no use in a minor version, and whether etcd ends because of it.

    The sentence goes on from "in etcd 3.7 NAME …". None where nothing is known against it.
    """
    for rule in _RULES:
        if rule.forbids(name, value, minor):
            return f"{rule.reason}; {rule.way_out}", rule.fatal
    return None


def find_unusable_settings(inventory: Inventory) -> tuple[str, ...]:
    """List a sentence for each setting that the wanted version would refuse or ignore."""
    settings, version = inventory.etcd.settings, inventory.etcd.version
    minor = inventory.etcd.version_tuple[:2]
    return tuple(
        f"etcd.settings.environment.{name}: in etcd {version} it {misfit[0]}"
        for name, value in settings.environment.items()
        if (misfit := find_misfit(name, value, minor))
    )


def check_settings(inventory: Inventory) -> None:
    """Raise InvalidInventory for settings that the wanted version would refuse or ignore."""
    if problems := find_unusable_settings(inventory):
        raise InvalidInventory(inventory.name, problems)
