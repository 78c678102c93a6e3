"""Etcd's own metrics, pure: those that runbooks ask for, read from Prometheus' text."""

from __future__ import annotations

import re
from collections import defaultdict

from tasks.model.diagnosis import COMMIT, FSYNC, MemberMetrics

V2_REQUESTS = "etcd_http_received_total"
QUOTA = "etcd_server_quota_backend_bytes"
ROUND_TRIP = "etcd_network_peer_round_trip_time_seconds"
VALUES = frozenset(
    {
        QUOTA,
        V2_REQUESTS,
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_failed_total",
        "etcd_server_proposals_pending",
        "etcd_server_heartbeat_send_failures_total",
        "etcd_server_slow_apply_total",
        "etcd_server_slow_read_indexes_total",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    }
)
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def parse_metrics(content: bytes) -> MemberMetrics:
    """Read what is asked of /metrics, values as sums over labels; other lines are passed over."""
    values: dict[str, float] = {}
    histograms: dict[str, list[tuple[float, float]]] = defaultdict(list)
    peers: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for text in content.decode("utf-8", "replace").splitlines():
        found = _LINE.fullmatch(text)
        if text.startswith("#") or found is None:
            continue
        name, labels = found[1], dict(_LABEL.findall(found[2] or ""))
        if name in VALUES:
            values[name] = values.get(name, 0.0) + float(found[3])
        elif name in (f"{FSYNC}_bucket", f"{COMMIT}_bucket"):
            bucket = (float(labels["le"]), float(found[3]))
            histograms[name.removesuffix("_bucket")].append(bucket)
        elif name == f"{ROUND_TRIP}_bucket":
            peers[labels.get("To", "?")].append((float(labels["le"]), float(found[3])))
    return MemberMetrics(
        values,
        {name: tuple(sorted(buckets)) for name, buckets in histograms.items()},
        {peer: tuple(sorted(buckets)) for peer, buckets in peers.items()},
    )
