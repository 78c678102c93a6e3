"""How etcd takes its flags and variables: Go's flag package, and etcd's own order of them.

Sources: Go's src/flag/flag.go, etcd's pkg/flags/flag.go and server/etcdmain/config.go, read in
3.6.16 and 3.7.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.config.launch import Given
from tasks.model.member_settings import Notice, flag_name, variable_name

BOOLEANS = frozenset(
    "auto-tls client-cert-auth debug discovery-insecure-skip-tls-verify "
    "discovery-insecure-transport enable-distributed-tracing enable-grpc-gateway "
    "enable-log-rotation enable-pprof enable-v2 experimental-compact-hash-check-enabled "
    "experimental-enable-distributed-tracing experimental-enable-lease-checkpoint "
    "experimental-enable-lease-checkpoint-persist experimental-initial-corrupt-check "
    "experimental-memory-mlock experimental-peer-skip-client-san-verification "
    "experimental-stop-grpc-service-on-defrag experimental-txn-mode-write-with-shared-buffer "
    "force-new-cluster help initial-election-tick-advance memory-mlock peer-auto-tls "
    "peer-client-cert-auth peer-skip-client-san-verification pre-vote socket-reuse-address "
    "socket-reuse-port strict-reconfig-check unsafe-no-fsync version v vv snapshot force".split()
)
"""Flags that take no word of their own: `--pre-vote false` is `--pre-vote` and a stray word."""

DURATIONS = frozenset(
    "backend-batch-interval compact-hash-check-time compaction-sleep-interval corrupt-check-time "
    "downgrade-check-time experimental-compact-hash-check-time "
    "experimental-compaction-sleep-interval experimental-corrupt-check-time "
    "experimental-downgrade-check-time experimental-warning-apply-duration "
    "experimental-warning-unary-request-duration experimental-watch-progress-notify-interval "
    "grpc-keepalive-interval grpc-keepalive-min-time grpc-keepalive-timeout raft-read-timeout "
    "raft-write-timeout warning-apply-duration warning-unary-request-duration "
    "watch-progress-notify-interval".split()
)

NUMBERS = frozenset(
    "auth-token-ttl backend-batch-limit bcrypt-cost bootstrap-defrag-threshold-megabytes "
    "compaction-batch-limit distributed-tracing-sampling-rate election-timeout heartbeat-interval "
    "max-concurrent-streams max-learners max-request-bytes max-snapshots max-txn-ops max-wals "
    "proxy-dial-timeout proxy-failure-wait proxy-read-timeout proxy-refresh-interval "
    "proxy-write-timeout "
    "quota-backend-bytes self-signed-cert-validity snapshot-catchup-entries snapshot-count".split()
)

CONFIG_FILE = "config-file"


def read_flags(words: Sequence[Given]) -> tuple[dict[str, Given], tuple[Notice, ...]]:
    """Read a command's words without the program; of a flag that is repeated the later wins.

    The second part says where etcd would end because of the words themselves.
    """
    found: dict[str, Given] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.text == "--" and not rest:
            break
        name = word.text.lstrip("-")
        dashes = len(word.text) - len(name)
        if not 1 <= dashes <= 2 or not name or name.startswith("="):  # noqa: PLR2004 - - or --
            said = f"{word.text!r} is not a flag, so etcd would end; take it out"
            return found, (Notice(word.place, said, is_fatal=True),)
        name, equals, _ = name.partition("=")
        if equals:
            found[name] = word.after(f"{'-' * dashes}{name}=")
        elif name in BOOLEANS:
            own = tuple(slot.within(f"{word.text}=") for slot in word.slots)
            found[name] = Given("true", word.place, own)
        elif rest:
            found[name] = rest.pop(0).after("")
        else:
            said = f"--{name} has no value, so etcd would end; give it one"
            return found, (Notice(word.place, said, is_fatal=True),)
    return found, ()


def read_variables(variables: Mapping[str, Given]) -> dict[str, Given]:
    """Pick etcd's variables, by flag name; an empty one counts as unset. It unsets ETCD_VERSION."""
    return {
        flag_name(name): given
        for name, given in variables.items()
        if name.startswith("ETCD_") and name != "ETCD_VERSION" and given.text != ""
    }


def find_shadowed(flags: Mapping[str, Given], variables: Mapping[str, Given]) -> tuple[Notice, ...]:
    """List the variables, empty ones too, beside a flag of the same setting.

    Etcd ends because of one from 3.4 on; before, the flag wins.
    """
    return tuple(
        Notice(
            variables[variable].place,
            f"{variable} is set beside --{name} ({given.place}): etcd from 3.4 on does not start "
            "with both; take one out",
        )
        for name, given in flags.items()
        if (variable := variable_name(name)) in variables
    )
