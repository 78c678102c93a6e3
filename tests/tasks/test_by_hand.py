"""Clusters set up by hand, down: adopted by their files, joined by a host, moved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.config.editing import name_members, readdress
from tasks.config.likeness import Model, choose_model, make_alike, refuse_leftovers
from tasks.config.settings import read_settings
from tasks.model.adoption import FoundEtcd
from tasks.model.certificates import FileAccess
from tasks.model.member_settings import SettingsFiles, TextFile
from tasks.model.members import DesiredMember
from tasks.pki.inspect import read_bundle
from tasks.pki.policy import read_leaf
from tasks.plans.addresses import desired_member
from tasks.plans.adoption import find_pairs
from tasks.procedures.adopted_settings import take_settings
from tasks.procedures.wishes import Wish, joining_hosts
from tests.field.byhand import WAYS, by_hand
from tests.field.layouts import Cluster, Laid
from tests.tasks.test_adopted_field import HOSTS, adopted, differences

FOUR = HOSTS | {"node4": "10.0.0.4"}


def files_of(host: str, laid: Laid) -> SettingsFiles:
    """Take the files that say how a member starts, drop-ins last."""
    texts = {p: TextFile(p, f.text, f.mode, *f.owner.split(":")) for p, f in laid.files.items()}
    units = sorted((f for p, f in texts.items() if "/systemd/" in p), key=lambda f: ".d/" in f.path)
    further = [f for p, f in texts.items() if "/systemd/" not in p and "/pki/" not in p]
    return SettingsFiles("etcd.service", host, tuple(units), tuple(further))


def seen(host: str, laid: Laid) -> FoundEtcd:
    """Make what adopt_cluster reads on such a host while etcd is down."""
    files = files_of(host, laid)
    one = take_settings(
        FoundEtcd(
            host=host,
            unit_path=files.units[0].path,
            environment_file=None,
            account="root",
            program="",
            version="3.5.16",
            is_running=False,
            settings={},
            hostname=host,
            files_beside=tuple(laid.files),
            directory="/var/lib/etcd",
        ),
        files,
    )
    pairs = {
        role: replace(
            pair,
            leaf=read_leaf(laid.files[str(pair.certificate)].text),
            access=FileAccess(owner="root", group="root", key_mode="0600"),
        )
        for role, pair in find_pairs(one).items()
    }
    trusted = laid.files[one.setting("TRUSTED_CA_FILE")].text
    both = frozenset(each.fingerprint for each in read_bundle(trusted))
    return replace(one, pairs=pairs, trusted_text=trusted, authorities=both, peer_authorities=both)


@pytest.fixture(params=sorted(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    """Give each way."""
    found: str = request.param
    return found


def lay(way: str, directory: Path, hosts: dict[str, str]) -> Cluster:
    """Lay it out in a directory of its own."""
    directory.mkdir()
    return by_hand(way, directory, hosts)


def test_it_is_adopted_and_a_host_joins_as_it_is(way: str, tmp_path: Path) -> None:
    """Nothing is due; the fourth has what whoever made three would have made."""
    cluster = lay(way, tmp_path / "three", HOSTS)
    inventory = adopted(tuple(seen(host, laid) for host, laid in cluster.hosts.items()))
    assert differences(inventory, cluster) == {}
    models = tuple(
        Model(
            inventory.layout(h.name),
            desired_member(inventory, h, None),
            files_of(h.name, cluster.hosts[h.name]),
        )
        for h in inventory.hosts
    )
    host, _ = joining_hosts(inventory, Wish(joining=("node4=10.0.0.4",)))["node4"]
    inventory = inventory.model_copy(update={"hosts": (*inventory.hosts, host)})
    member = desired_member(inventory, host, None)
    chosen = choose_model(models)
    assert chosen is not None
    model, unlike = chosen
    assert unlike == ()
    members = (*(each.member for each in models), member)
    made = make_alike(model, inventory.layout("node4"), member, members, "node4")
    refuse_leftovers(model, read_settings(made), unlike, is_alone=False)
    wanted = files_of("node4", lay(way, tmp_path / "four", FOUR).hosts["node4"])
    for have, want in zip(made.files, wanted.files, strict=True):
        assert have.text.replace('"', "'") == want.text.replace('"', "'")


def test_a_member_of_it_moves(way: str, tmp_path: Path) -> None:
    """Its address alone is changed, wherever it stands; localhost stays."""
    files = files_of("node2", lay(way, tmp_path / "three", HOSTS).hosts["node2"])
    urls = HOSTS | {"node2": "10.0.0.22"}
    goal = tuple(
        DesiredMember(host, f"https://{a}:2380", f"https://{a}:2379", f"etcd{number}")
        for number, (host, a) in enumerate(urls.items(), 1)
    )
    moved = name_members(readdress(files, goal[1]), goal)
    for have, before in zip(moved.files, files.files, strict=True):
        wanted = before.text.replace("//10.0.0.2:", "//10.0.0.22:")
        assert have.text.replace('"', "'") == wanted.replace('"', "'")
