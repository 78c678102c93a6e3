"""A new member of an adopted cluster: its settings are what the cluster's builder would have made.

The builders are the referee: a fourth host that they lay out beside the other three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.config.launch import NotUnderstood
from tasks.config.likeness import Model, choose_model, find_unlike, make_alike, refuse_leftovers
from tasks.config.rendering import MARK
from tasks.config.settings import read_settings
from tasks.model.inventory import Inventory
from tasks.model.machines import Host
from tasks.model.member_settings import SettingsFiles, TextFile, variable_name
from tasks.model.members import DesiredMember
from tasks.plans.addresses import desired_member
from tasks.plans.member_names import name_member
from tasks.procedures.wishes import Wish, joining_hosts
from tests.field.layouts import UNIT, Cluster, Laid, kubeasz, kubekey, kubespray
from tests.field.odd import named
from tests.tasks.test_adopted_field import HOSTS, adopted, found

Builder = Callable[..., Cluster]
Adopted = tuple[Inventory, tuple[Model, ...]]
FOUR = HOSTS | {"node4": "10.0.0.4"}


def files_of(host: str, laid: Laid) -> SettingsFiles:
    """Take the files that say how a member starts."""
    texts = {
        path: TextFile(path, file.text, file.mode, *file.owner.split(":"))
        for path, file in laid.files.items()
    }
    further = tuple(file for path, file in texts.items() if path.endswith(".env"))
    return SettingsFiles("etcd.service", host, (texts[UNIT],), further)


def model_of(inventory: Inventory, host: Host, laid: Laid) -> Model:
    """Make a member as it is seen."""
    member = desired_member(inventory, host, None)
    return Model(inventory.layout(host.name), member, files_of(host.name, laid))


@pytest.fixture(scope="module", params=[kubespray, kubekey, kubeasz, named])
def builder(request: pytest.FixtureRequest) -> Builder:
    """Give each builder."""
    build: Builder = request.param
    return build


def adopt_three(builder: Builder, directory: Path) -> Adopted:
    """Adopt three hosts."""
    cluster = builder(directory, HOSTS)
    inventory = adopted(found(cluster))
    models = tuple(model_of(inventory, h, cluster.hosts[h.name]) for h in inventory.hosts)
    return inventory, models


@pytest.fixture(scope="module")
def three(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    """Adopt what each has built."""
    return adopt_three(builder, tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def of_kubespray(tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    """Adopt kubespray's three hosts."""
    return adopt_three(kubespray, tmp_path_factory.mktemp("kubespray"))


def joined(inventory: Inventory) -> tuple[Inventory, DesiredMember]:
    """Let a fourth host join, as it is typed."""
    hosts = joining_hosts(inventory, Wish(joining=("node4=10.0.0.4",)))
    (host, _) = hosts["node4"]
    return inventory.model_copy(update={"hosts": (*inventory.hosts, host)}), desired_member(
        inventory, host, None
    )


def test_a_new_member_is_as_the_builder_would_have_made_it(
    builder: Builder, three: Adopted, tmp_path: Path
) -> None:
    """Name, addresses, loopback listeners, metrics' URLs, files; and no byte besides."""
    inventory, models = three
    inventory, member = joined(inventory)
    chosen = choose_model(models)
    assert chosen is not None
    model, unlike = chosen
    assert unlike == ()
    members = (*(each.member for each in models), member)
    made = make_alike(model, inventory.layout("node4"), member, members, "node4")
    refuse_leftovers(model, read_settings(made), unlike, is_alone=False)
    wanted = files_of("node4", builder(tmp_path, FOUR).hosts["node4"])
    state = "initial-cluster-state"
    assert read_settings(made).value(state) == "existing"
    for have, want in zip(made.files, wanted.files, strict=True):
        text = want.text.replace("STATE=new", 'STATE="existing"').replace(
            f"--{state}=new", f"--{state}=existing"
        )
        assert have.text.replace('"', "") == text.replace('"', "")
        assert have.mode in {"0640", "0644"}


def test_a_member_on_its_own_is_a_model(three: Adopted) -> None:
    """There is none to compare with."""
    inventory, models = three
    inventory, member = joined(inventory)
    chosen = choose_model(models[:1])
    assert chosen is not None
    members = (models[0].member, member)
    made = make_alike(chosen[0], inventory.layout("node4"), member, members, "node4")
    refuse_leftovers(chosen[0], read_settings(made), (), is_alone=True)
    assert read_settings(made).split("initial-cluster") == tuple(
        f"{m.member}={m.peer_url}" for m in members
    )


def changed(model: Model, old: str, new: str) -> Model:
    """Change something in a member's files."""
    files = model.files

    def change(group: tuple[TextFile, ...]) -> tuple[TextFile, ...]:
        return tuple(replace(file, text=file.text.replace(old, new)) for file in group)

    texts = replace(files, units=change(files.units), further=change(files.further))
    assert texts != files
    return replace(model, files=texts)


def test_the_member_that_most_are_like_is_the_model(of_kubespray: Adopted) -> None:
    """One with a quota of its own is not; where it must be, the difference is told."""
    _, (one, two, three) = of_kubespray
    odd = changed(one, "ETCD_PROXY", "ETCD_QUOTA_BACKEND_BYTES=9999999\nETCD_PROXY")
    chosen = choose_model((odd, two, three))
    assert chosen is not None
    assert chosen[0] is two
    told = [str(each) for each in find_unlike(odd, (two,))]
    assert told == ["quota-backend-bytes is 9999999 (/etc/etcd.env:14), on node2 unset"]


def test_our_own_layout_is_one_of_them(of_kubespray: Adopted) -> None:
    """Where half of the members have it or more, it is rendered and not copied."""
    _, (one, two, three) = of_kubespray
    ours = [changed(each, "[Unit]", f"{MARK}.\n[Unit]") for each in (one, two)]
    assert choose_model((*ours, three)) is None
    chosen = choose_model((ours[0], two, three))
    assert chosen is not None
    assert chosen[0] is two


@pytest.mark.parametrize(
    ("added", "reason"),
    [
        ("ETCD_FORCE_NEW_CLUSTER=true", "a cluster of its own"),
        ("ETCD_DISCOVERY=https://discovery.etcd.io/x", "only for a cluster that is new"),
    ],
)
def test_what_must_not_be_copied_is_refused(of_kubespray: Adopted, added: str, reason: str) -> None:
    """File and line are named."""
    inventory, (model, *_) = of_kubespray
    inventory, member = joined(inventory)
    model = changed(model, "ETCD_PROXY", f"{added}\nETCD_PROXY")
    with pytest.raises(NotUnderstood, match=rf"/etc/etcd.env:14: .*{reason}"):
        make_alike(model, inventory.layout("node4"), member, (member,), "node4")


def test_a_named_member_listens_at_its_own_address_or_is_refused(tmp_path: Path) -> None:
    """Which its URLs do not tell; at localhost and at all addresses everybody may."""
    inventory, (model, *_) = adopt_three(named, tmp_path)
    inventory, member = joined(inventory)
    layout = inventory.layout("node4")
    for local in ("https://localhost:2379", "https://0.0.0.0:2379"):
        own = changed(model, "https://127.0.0.1:2379", local)
        assert local in make_alike(own, layout, member, (member,), "node4").units[0].text
    unknown = replace(model, layout=replace(model.layout, address=None))
    with pytest.raises(NotUnderstood, match=r"2380, which is no address of node4's that is known"):
        make_alike(unknown, layout, member, (member,), "node4")


def test_what_names_the_model_and_follows_no_rule_is_refused(of_kubespray: Adopted) -> None:
    """A setting with the model's own name, which another member has otherwise."""
    inventory, models = of_kubespray
    one, two, three = (
        changed(m, "ETCD_PROXY", f"ETCD_LOG_OUTPUTS=/log/{w}\nETCD_PROXY")
        for m, w in zip(models, ("of-node1", "of-node2", "elsewhere"), strict=True)
    )
    inventory, member = joined(inventory)
    unlike = find_unlike(one, (two, three))
    made = make_alike(one, inventory.layout("node4"), member, (member,), "node4")
    with pytest.raises(NotUnderstood, match=r"log-outputs is '/log/of-node1', which names node1"):
        refuse_leftovers(one, read_settings(made), unlike, is_alone=False)


@pytest.mark.parametrize(
    ("text", "added"),
    [
        (
            "ETCD_NAME=a\nETCD_INITIAL_CLUSTER=a=https://10.0.0.1:2380\n",
            "ETCD_INITIAL_CLUSTER_STATE",
        ),
        ("ETCD_NAME=a\n", "ETCD_INITIAL_CLUSTER_STATE"),
    ],
)
def test_a_member_that_says_no_state_is_given_one(
    of_kubespray: Adopted, text: str, added: str
) -> None:
    """Without it etcd would make a cluster of its own."""
    inventory, (model, *_) = of_kubespray
    inventory, member = joined(inventory)
    urls = "".join(
        f"ETCD_{name}=https://10.0.0.1:{port}\n"
        for name, port in (
            ("INITIAL_ADVERTISE_PEER_URLS", 2380),
            ("LISTEN_PEER_URLS", 2380),
            ("ADVERTISE_CLIENT_URLS", 2379),
        )
    )
    short = replace(model.files, further=(TextFile("/etc/etcd.env", text + urls),))
    made = make_alike(
        replace(model, files=short), inventory.layout("node4"), member, (member,), "node4"
    )
    assert f"{added}=existing\n" in made.further[0].text
    assert read_settings(made).value("initial-cluster") == "etcd4=https://10.0.0.4:2380"


@pytest.mark.parametrize(
    ("hosts", "name"),
    [
        ({"node1": "node1", "node2": "node2"}, None),
        ({"node1": "etcd-node1", "node2": "etcd-node2"}, "etcd-node9"),
        ({"node1": "etcd-10.0.0.1", "node2": "etcd-10.0.0.2"}, "etcd-10.0.0.9"),
        ({"node1": "etcd1", "node2": "etcd2", "node3": "etcd7"}, "etcd8"),
        ({"node1": "etcd01", "node2": "etcd02"}, "etcd03"),
        ({"node1": "alpha", "node2": "beta"}, None),
        ({"node1": "infra0"}, "infra1"),
        ({"node1": "NODE1", "node2": "NODE2"}, "NODE9"),
        ({"node1": "Node1.Example", "node2": "Node2.Example"}, "Node9.Example"),
    ],
)
def test_a_new_member_is_named_as_the_others_are(hosts: dict[str, str], name: str | None) -> None:
    """After its host, its address, or the highest number; else as its host."""
    known = [Host(name=h, member=m, address=f"10.0.0.{h[-1]}") for h, m in hosts.items()]
    assert name_member(known, "node9", "10.0.0.9") == name


OWN = {
    "name": "etcd1",
    "data-dir": "/data/etcd1.etcd",
    "wal-dir": "/log/etcd1",
    "initial-advertise-peer-urls": "https://10.0.0.1:2380",
    "listen-peer-urls": "https://10.0.0.1:2380",
    "advertise-client-urls": "https://10.0.0.1:2379",
    "listen-client-urls": "https://10.0.0.1:2379,http://127.0.0.1:2379",
    "listen-metrics-urls": "http://10.0.0.1:2381",
    "initial-cluster": "etcd1=https://10.0.0.1:2380",
    "cert-file": "/s/node1.pem",
    "key-file": "/s/node1-key.pem",
    "trusted-ca-file": "/s/ca.pem",
    "peer-cert-file": "/s/node1.pem",
    "peer-key-file": "/s/node1-key.pem",
    "peer-trusted-ca-file": "/s/ca.pem",
    "log-level": "warn",
}
SECTIONS = {"cert-file", "key-file", "trusted-ca-file"}


def by_flags() -> tuple[tuple[TextFile, ...], tuple[TextFile, ...]]:
    """Write the settings as flags, one in two words."""
    words = [f"--{k}={v}" if k != "name" else f"--name {v}" for k, v in OWN.items()]
    return (TextFile(UNIT, f"[Service]\nExecStart=/o/etcd {' '.join(words)}\n"),), ()


def by_drop_in() -> tuple[tuple[TextFile, ...], tuple[TextFile, ...]]:
    """Write them into a drop-in, a variable a line."""
    lines = "".join(f'Environment="{variable_name(k)}={v}"\n' for k, v in OWN.items())
    drop_in = TextFile(f"{UNIT}.d/10-etcd.conf", f"[Service]\n{lines}")
    return (TextFile(UNIT, "[Service]\nExecStart=/o/etcd\n"), drop_in), ()


def by_settings_file() -> tuple[tuple[TextFile, ...], tuple[TextFile, ...]]:
    """Write them into a --config-file, with a comment."""
    plain = {k: v for k, v in OWN.items() if k.removeprefix("peer-") not in SECTIONS}
    text = "# ours\n" + "".join(f"{k}: {v}\n" for k, v in plain.items())
    for section, prefix in (("client", ""), ("peer", "peer-")):
        pairs = "".join(f"  {k}: {OWN[prefix + k]}\n" for k in sorted(SECTIONS))
        text += f"{section}-transport-security:\n{pairs}"
    unit = TextFile(UNIT, "[Service]\nExecStart=/o/etcd --config-file=/c/etcd.yml\n")
    return (unit,), (TextFile("/c/etcd.yml", text),)


@pytest.mark.parametrize("write", [by_flags, by_drop_in, by_settings_file])
def test_a_new_member_is_made_wherever_the_settings_are(
    write: Callable[[], tuple[tuple[TextFile, ...], tuple[TextFile, ...]]],
) -> None:
    """A log of its own, data by the member's name, files by the host's; and no state was set."""
    pair = {"certificate": "/s/{host}.pem", "key": "/s/{host}-key.pem"}
    hosts = [{"name": f"node{n}", "member": f"etcd{n}", "address": f"10.0.0.{n}"} for n in (1, 4)]
    inventory = Inventory.model_validate(
        {
            "name": "c",
            "even_members": True,
            "hosts": hosts,
            "paths": {
                "state": "/data",
                "data_directory": "/data/{member}.etcd",
                "wal_directory": "/log/{member}",
                "trusted": "/s/ca.pem",
                "pairs": dict.fromkeys(("server", "peer", "client"), pair),
            },
            "etcd": {"version": "3.5.16"},
            "authority": {"certificate": "c", "key": "k", "passphrase": {"env": "X"}},
        }
    )
    old, new = (desired_member(inventory, host, None) for host in inventory.hosts)
    files = SettingsFiles("etcd.service", "node1", *write())
    before = read_settings(files)
    assert {k: before.value(k) for k in OWN} == OWN
    assert not before.faults
    model = Model(inventory.layout("node1"), old, files)
    made = make_alike(model, inventory.layout("node4"), new, (old, new), "node4")
    after = read_settings(made)
    cluster = "etcd1=https://10.0.0.1:2380,etcd4=https://10.0.0.4:2380"
    wanted = {
        k: v.replace("etcd1", "etcd4").replace("node1", "node4").replace("10.0.0.1", "10.0.0.4")
        for k, v in OWN.items()
    } | {"initial-cluster": cluster, "initial-cluster-state": "existing"}
    assert {k: after.value(k) for k in wanted} == wanted
    assert not after.faults
    refuse_leftovers(model, after, (), is_alone=True)
