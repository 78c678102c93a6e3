"""Reading etcd.conf as systemd does, and whose it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.parsing import identity, parse_configuration, validate_configuration

CONF = """\
# Managed
ETCD_NAME="a"
ETCD_DATA_DIR="/var/lib/etcd/default.etcd"
ETCD_INITIAL_CLUSTER="a=https://10.0.0.1:2380,b=https://10.0.0.2:2380"
ETCD_INITIAL_CLUSTER_TOKEN="etcd-cluster"
"""
CLUSTER = "a=https://10.0.0.1:2380,b=https://10.0.0.2:2380"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n \t\n# a\n; b\n  # c\n#A=1", {}),
        ("A=1", {"A": "1"}),
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=\nB=2", {"A": "", "B": "2"}),
        ('A=""', {"A": ""}),
        ("  A = b c  \n", {"A": "b c"}),
        ("A=b # c", {"A": "b # c"}),
        ("A=b=c", {"A": "b=c"}),
        ('A="b=c d"', {"A": "b=c d"}),
        ("A='b \"c\" \\d'", {"A": 'b "c" \\d'}),
        ('A="b \\"c\\" \\\\ \\$ \\` \\n"', {"A": 'b "c" \\ $ ` \\n'}),
        ('A="b\nc"', {"A": "b\nc"}),
        ('A="b\\\nc"', {"A": "bc"}),
        ("A=b\\\nc\nD=e", {"A": "bc", "D": "e"}),
        ("A=b\\ \nC=d", {"A": "b ", "C": "d"}),
        ("A=b\\tc", {"A": "btc"}),
        ("A=\\\nb", {"A": "b"}),
        ("A='b'\"c\" 'd'", {"A": "bcd"}),
        ("A='b'c", {"A": "bc"}),
        ("A=b'c'", {"A": "b'c'"}),
        ("A=$B%h", {"A": "$B%h"}),
        ("A=b\\", {"A": "b"}),
    ],
)
def test_it_reads_what_systemd_reads(text: str, expected: dict[str, str]) -> None:
    """Comments, quotes, escapes and continuation as in systemd.exec(5)."""
    assert parse_configuration(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('A=1\nB="2\nC=3\n', r"line 2: a quote \(\"\) is not closed"),
        ("A='", r"line 1: a quote \('\) is not closed"),
        ('A="b\\', r"line 1: a quote"),
        ("# a \\\nB=1", r"line 1: this comment ends in a backslash"),
    ],
)
def test_what_cannot_be_read_for_certain_is_an_error_with_its_line(text: str, message: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=message):
        parse_configuration(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nwhat\nB=2", r"line 2: 'what' has no '='"),
        ("=1\nA=1\nB=2", r"line 1: '' is not the name"),
        ("export X=1\nA=1\nB=2", r"line 1: 'export X' is not the name"),
        ("A=1\nB=2\n1B=2", r"line 3: '1B' is not the name"),
        ("A=1\nB=2\nC=b\0c", r"line 3: C has a control character"),
    ],
)
def test_what_systemd_skips_is_not_written(text: str, message: str) -> None:
    """It is skipped in a file that is there, and never rendered."""
    assert parse_configuration(text) == {"A": "1", "B": "2"}
    with pytest.raises(ValueError, match=message):
        validate_configuration(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """The reader always ends, with a dictionary or a ValueError."""
    try:
        found = parse_configuration(text)
    except ValueError:
        return
    assert all(isinstance(value, str) for value in found.values())


@given(st.text(st.characters(exclude_characters='\r"\\$`', exclude_categories=["Cs", "Cc"])))
def test_a_quoted_value_comes_back(value: str) -> None:
    """Whatever needs no escape is read back from double quotes."""
    assert parse_configuration(f'A="{value}"\nB=1\n') == {"A": value, "B": "1"}


def same(text: str | None) -> dict[str, tuple[str | None, str | None]]:
    """Compare with the wanted text."""
    return identity(text, CONF)


def test_the_clusters_own_file_is_recognised_in_any_order() -> None:
    """The order of the initial cluster and how values are quoted do not matter."""
    other = CONF.replace('"', "").replace(CLUSTER, ",".join(reversed(CLUSTER.split(","))))
    assert other != CONF
    for text in (CONF, other):
        assert all(have == want for have, want in same(text).values())
    assert same(CONF)["ETCD_INITIAL_CLUSTER"] == (CLUSTER, CLUSTER)


@pytest.mark.parametrize(
    ("old", "new", "key", "have"),
    [
        ('"a"', '"c"', "ETCD_NAME", "c"),
        ("default.etcd", "other", "ETCD_DATA_DIR", "/var/lib/etcd/other"),
        ("etcd-cluster", "foreign", "ETCD_INITIAL_CLUSTER_TOKEN", "foreign"),
        (
            ",b=https://10.0.0.2:2380",
            "",
            "ETCD_INITIAL_CLUSTER",
            "a=https://10.0.0.1:2380",
        ),
        ('ETCD_NAME="a"\n', "", "ETCD_NAME", None),
    ],
)
def test_another_clusters_file_is_told_by_what_differs(
    old: str, new: str, key: str, have: str | None
) -> None:
    """Exactly the variable that differs does."""
    found = same(CONF.replace(old, new, 1))
    assert [name for name, (left, right) in found.items() if left != right] == [key]
    assert found[key][0] == have


@pytest.mark.parametrize("text", [None, "", "nonsense", 'ETCD_NAME="a'])
def test_a_missing_or_unreadable_file_has_no_identity(text: str | None) -> None:
    """None for all, and what should be there."""
    assert same(text) == {
        "ETCD_NAME": (None, "a"),
        "ETCD_DATA_DIR": (None, "/var/lib/etcd/default.etcd"),
        "ETCD_INITIAL_CLUSTER_TOKEN": (None, "etcd-cluster"),
        "ETCD_INITIAL_CLUSTER": (None, CLUSTER),
    }


def test_a_wanted_text_that_cannot_be_read_is_an_error() -> None:
    """That one is the runbooks' own."""
    with pytest.raises(ValueError, match="is not closed"):
        identity(None, 'ETCD_NAME="a')


def test_a_half_configuration_is_not_valid() -> None:
    """What is missing is named."""
    with pytest.raises(ValueError, match="lacks ETCD_LISTEN_PEER_URLS, ETCD_LISTEN_CLIENT_URLS"):
        validate_configuration(CONF)
