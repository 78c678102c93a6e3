"""What a restart would change: nothing where all is the same, and each difference, worst first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.config.starting import find_refused_flags, find_start_faults, judge_config_file
from tasks.hosts.batch import Result
from tasks.hosts.loaded import parse_trust
from tasks.model.restarts import NextStart, RunningEtcd, StartObservation, Trust
from tasks.plans.restarts import ADDRESSES, TRUST, Surprise, find_against, find_differences

PROGRAM = "/usr/local/bin/etcd"
SETTINGS = {"ETCD_NAME": "m1", "ETCD_INITIAL_CLUSTER": "m1=https://10.0.0.1:2380"}
RUNNING = RunningEtcd(PROGRAM, "3.6.16", (), SETTINGS, is_replaced=False, is_deleted=False)
NEXT = NextStart(PROGRAM, "3.6.16", (), SETTINGS)
SAME = StartObservation("m1", "etcd.service", RUNNING, NEXT, "enabled")


def after(**changes: object) -> StartObservation:
    """Make a member whose next start differs."""
    return replace(SAME, next=replace(NEXT, **changes))  # type: ignore[arg-type]


def test_a_member_that_would_start_as_it_runs_has_no_difference() -> None:
    """Nor does what is read at the first start only make one."""
    grown = {**SETTINGS, "ETCD_INITIAL_CLUSTER": "m1=https://10.0.0.1:2380,m2=https://m2:2380"}
    assert find_differences((SAME, after(environment=grown))) == ()
    flags = ("--name=m1", "--initial-cluster=m1=https://10.0.0.1:2380")
    in_flags = replace(after(arguments=("--name=m1", "--initial-cluster", "m1=x,m2=y")),
                       running=replace(RUNNING, arguments=flags))  # fmt: skip
    assert find_differences((in_flags,)) == ()


@pytest.mark.parametrize(
    ("seen", "kind", "words"),
    [
        (after(version=None), Surprise.NO_START, "is missing or does not run"),
        (after(version="3.5.16"), Surprise.NO_START, "below the 3.6 that the cluster runs"),
        (after(version="3.8.0"), Surprise.NO_START, "cannot be skipped"),
        (after(version="3.7.3"), Surprise.VERSION, "etcd 3.6.16 becomes 3.7.3"),
        (after(faults=("X is 'y'",)), Surprise.NO_START, "X is 'y'"),
        (after(missing_files=("/x.pem",)), Surprise.NO_START, "there is no /x.pem"),
        (after(arguments=("--debug",)), Surprise.SETTINGS, "become '--debug'"),
        (after(environment={}), Surprise.SETTINGS, "ETCD_NAME from 'm1' to unset"),
        (after(ignored=("X is ignored",)), Surprise.IGNORED, "X is ignored"),
        (after(skipped=("/x:9: 'ETCD_X 1' has",)), Surprise.IGNORED, "/x:9: 'ETCD_X 1'"),
        (after(skipped=("/x:1: '[Member]' has",)), Surprise.REMARK, "/x:1: '[Member]'"),
        (replace(SAME, unit_file_state="disabled"), Surprise.BOOT, "systemctl enable etcd"),
        (replace(SAME, unit_file_state="masked"), Surprise.NO_START, "is masked"),
        (replace(SAME, needs_daemon_reload=True), Surprise.BOOT, "systemctl daemon-reload"),
        (replace(SAME, unread=("/etc/x",)), Surprise.NO_START, "there is no /etc/x"),
        (
            replace(SAME, running=replace(RUNNING, is_replaced=True)),
            Surprise.REMARK,
            "is another file",
        ),
    ],
)
def test_each_difference_is_told(seen: StartObservation, kind: Surprise, words: str) -> None:
    """The worst one first, naming the host."""
    first = find_differences((seen,))[0]
    assert first.kind is kind
    assert words in first.sentence
    assert "m1" in first.sentence


@pytest.mark.parametrize(
    ("trust", "kind", "words"),
    [
        (
            Trust({"/ca.pem": ("CN=a", "CN=b")}, (("CN=a",),), ()),
            Surprise.SETTINGS,
            "it trusts are CN=a, and /ca.pem has CN=a, CN=b now",
        ),
        (
            Trust({"/ca.pem": ("CN=a", "CN=a")}, (("CN=a",),), ("/ca.pem",)),
            Surprise.SETTINGS,
            "/ca.pem has 2 of CN=a now",
        ),
        (Trust({"/ca.pem": ()}, (("CN=a",),), ()), Surprise.SETTINGS, "/ca.pem has none now"),
        (
            Trust({"/ca.pem": ("CN=a",)}, (("CN=a",),), ("/ca.pem",)),
            Surprise.REMARK,
            "/ca.pem was changed after the start of its etcd",
        ),
    ],
)
def test_a_trusted_file_that_is_not_what_runs(trust: Trust, kind: Surprise, words: str) -> None:
    """Known where the names differ; where they do not, a later change is a hint."""
    (found,) = find_differences((replace(SAME, trust=trust),))
    assert found.kind is kind
    assert words in found.sentence.replace("that it", "it")
    assert find_against((found,), frozenset({TRUST})) == ()
    assert bool(find_against((found,), frozenset())) is (kind is Surprise.SETTINGS)


def test_a_trusted_file_that_is_what_runs_is_no_difference() -> None:
    """Also with files of their own for clients and peers, and where nobody names authorities."""
    own = Trust({"/a.pem": ("CN=a",), "/b.pem": ("CN=b",)}, (("CN=a",), ("CN=b",)), ())
    for trust in (own, Trust({"/a.pem": ("CN=a",)}, (), ()), None):
        assert find_differences((replace(SAME, trust=trust),)) == ()


def test_what_a_process_has_loaded_is_read_from_its_listeners() -> None:
    """Names may have spaces; a later change is told by the file's time."""
    said = (
        "started\t1000.50\nchanged\t/ca.pem\t1000.7\nfile\t/ca.pem\tCN=b, inc\n"
        "file\t/ca.pem\tCN=a\nloaded\t*:2379\tCN=a\nloaded\t*:2379\tCN=b, inc\n"
        "loaded\t*:2380\tCN=b, inc\nloaded\t*:2380\tCN=a\n"
    )
    names = ("CN=a", "CN=b, inc")
    assert parse_trust(Result("", 0, said, "", 0)) == Trust(
        {"/ca.pem": names}, (names,), ("/ca.pem",)
    )
    assert parse_trust(Result("", 0, "", "", 0)) is None


def test_what_the_run_writes_itself_is_no_obstacle() -> None:
    """A variable or a file by its name; another one is, and so is another version."""
    written = frozenset({"ETCD_NAME", "/x.pem"})
    own = after(environment={"ETCD_INITIAL_CLUSTER": "x"}, missing_files=("/x.pem",))
    other = after(missing_files=("/y.pem",), version="3.7.3")
    assert find_against(find_differences((own,)), written) == ()
    assert len(find_against(find_differences((own,)), frozenset())) == 2
    found = find_against(find_differences((other,)), written)
    assert [each.kind for each in found] == [Surprise.NO_START, Surprise.VERSION]


@pytest.mark.parametrize(
    ("old", "new", "is_own"),
    [
        (("--listen-peer-urls=https://a:2380",), ("--listen-peer-urls=https://b:2380",), True),
        (("--listen-peer-urls", "https://a:1"), ("--listen-peer-urls", "https://b:1"), True),
        (("--listen-peer-urls=https://a:2380",), ("--quota-backend-bytes=1",), False),
        (("--quota-backend-bytes", "1"), ("--quota-backend-bytes", "2"), False),
    ],
)
def test_flags_are_the_runs_own_where_only_addresses_differ(
    old: tuple[str, ...], new: tuple[str, ...], *, is_own: bool
) -> None:
    """A run that died between the edit and the restart goes on; a hand's edit is told."""
    seen = replace(after(arguments=new), running=replace(RUNNING, arguments=old))
    (found,) = find_differences((seen,))
    assert (found.about in ADDRESSES) is is_own


def test_going_back_is_possible_while_the_cluster_is_mixed() -> None:
    """Below the version of one member, not below the cluster's."""
    other = replace(SAME, host="m2", running=replace(RUNNING, version="3.5.30"))
    assert [d.kind for d in find_differences((after(version="3.5.30"), other))] == [
        Surprise.VERSION,
        Surprise.VERSION,
    ]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ETCD_HEARTBEAT_INTERVAL", "100ms", "not a number"),
        ("ETCD_ELECTION_TIMEOUT", "400", "less than 5 times"),
        ("ETCD_CLIENT_CERT_AUTH", "yes", "neither true nor false"),
        ("ETCD_GRPC_KEEPALIVE_MIN_TIME", "5", "not a duration"),
        ("ETCD_LISTEN_CLIENT_URLS", "10.0.0.1:2379", "not a URL"),
        ("ETCD_LISTEN_CLIENT_URLS", "https://10.0.0.1", "not a URL"),
        ("ETCD_LOG_LEVEL", "loud", "none of"),
        ("ETCD_DISCOVERY_FALLBACK", "proxy", "does not start"),
    ],
)
def test_a_value_with_which_etcd_does_not_start(name: str, value: str, words: str) -> None:
    """Each was seen to end etcd 3.6.16 and 3.7.3; the empty one counts as unset."""
    (fault,), ignored = find_start_faults({name: value}, "3.7.3")
    assert words in fault
    assert name in fault
    assert ignored == ()
    assert find_start_faults({name: ""}, "3.7.3") == ((), ())


def test_a_setting_that_the_version_passes_over_is_no_fault() -> None:
    """It is told with its successor."""
    faults, ignored = find_start_faults(
        {"ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK": "true"}, "3.7.3"
    )
    assert faults == ()
    assert "ETCD_FEATURE_GATES" in ignored[0]


def test_a_variable_that_asks_for_what_etcd_does_anyway_is_no_finding() -> None:
    """Kubespray writes ETCD_PROXY=off, and 3.6 has no proxy; as a flag it ends etcd."""
    assert find_start_faults({"ETCD_PROXY": "off"}, "3.6.16") == ((), ())
    assert find_start_faults({"ETCD_PROXY": "on"}, "3.6.16") != ((), ())
    assert find_refused_flags(("--proxy=off",), {}, "3.6.16") != ()


def test_dropped_keys_of_a_settings_file_have_a_successor() -> None:
    """Etcd 3.7.3 starts with such a file and says nothing."""
    text = (
        "name: m1\nexperimental-initial-corrupt-check: true\n"
        "experimental-watch-progress-notify-interval: 5s\n"
        "peer-transport-security:\n  client-cert-auth: true\n"
    )
    faults, (gate, renamed) = judge_config_file("/etc/etcd.yml", text, "3.7.3")
    assert faults == ()
    assert "drops experimental-initial-corrupt-check of /etc/etcd.yml" in gate
    assert "set feature-gates to InitialCorruptCheck=VALUE" in gate
    assert "name it watch-progress-notify-interval" in renamed
    assert judge_config_file("/etc/etcd.yml", text, "3.6.16") == ((), ())
    (fault,), _ = judge_config_file("/etc/etcd.yml", "name: a\npre-vote: maybe\n", "3.6.16")
    assert fault.startswith("/etc/etcd.yml:2: pre-vote: 'maybe' is neither true nor false")


def test_a_flag_that_the_version_does_not_know_ends_it() -> None:
    """With its successor; the flags that it knows are no fault."""
    flags = ("--name=m1", "--experimental-initial-corrupt-check", "--data-dir", "/x", "$MORE")
    (fault,) = find_refused_flags(flags, {}, "3.7.3")
    assert "etcd 3.7.3 does not know --experimental-initial-corrupt-check" in fault
    assert "set feature-gates to InitialCorruptCheck=VALUE" in fault
    assert find_refused_flags(flags, {}, "3.6.16") == ()


def test_a_flag_beside_its_variable_ends_etcd_and_so_does_a_bad_value() -> None:
    """An empty variable, too (3.4.23, 3.5.16 and 3.7.3 were run so); one with a $ is not judged."""
    flags = ("--name=m1", "--heartbeat-interval=100ms", "--max-wals=${N}", "--wal-dir=")
    value, shadowed = find_refused_flags(flags, {"ETCD_NAME": "", "ETCD_METRICS": "x"}, "3.5.16")
    assert value == "--heartbeat-interval is '100ms', not a number"
    assert "ETCD_NAME is set beside --name" in shadowed
