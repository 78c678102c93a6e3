"""Adopting a cluster that somebody else has set up: read from its hosts, written as an inventory.

What is wrong with certificates is judged as in a check.
"""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from tasks.engine import frame
from tasks.engine.authority import write_private
from tasks.engine.run import Run, both, open_run, step, together
from tasks.etcd import wire
from tasks.hosts import adoption, system
from tasks.hosts import settings as hosts_settings
from tasks.hosts.connection import HostConnection
from tasks.hosts.files import parse_file, read_file_command
from tasks.hosts.nodes import node_command, parse_node
from tasks.model.adoption import FoundEtcd, FoundPair
from tasks.model.certificates import FileAccess, Role
from tasks.model.credentials import SecretSource
from tasks.model.errors import CertificateRefused, InvalidInventory, Refused
from tasks.model.inventory import Inventory
from tasks.model.inventory_file import CLUSTERS, parse_inventory
from tasks.model.layout import MANIFEST
from tasks.model.machines import Ssh
from tasks.model.pointers import parameter
from tasks.model.record import Event
from tasks.pki.inspect import find_intermediate, find_signer, pick_signer, read_bundle
from tasks.pki.policy import read_leaf
from tasks.plans.adopted_files import find_url, name_hosts
from tasks.plans.adopted_reasons import container_sentence, find_container
from tasks.plans.adoption import adopt, find_pairs
from tasks.plans.adoption_remarks import (
    authority_remarks,
    find_remarks,
    group_remarks,
    on_a_screen,
)
from tasks.plans.sharing import adoption_rows
from tasks.procedures.adopted_settings import take_pod, take_settings
from tasks.procedures.expiry import check_host
from tasks.report.adoption import adoption_markdown, adoption_table
from tasks.steps import nodes
from tasks.steps.reports import artifact_key
from tasks.steps.sharing import see_all

HEAD = """Written by adopt_cluster from what it found; nothing on the hosts was changed.
What is left out has its default, see example.yaml."""
AUTHORITY = """The certificate is the one that the members trust. Its key could not be seen: put it
at `key`, and a passphrase for it into the variable; it is encrypted when it is first used."""

_FILES = ("known_hosts", "key", "config")
_BEGIN = "BEGIN CERTIFICATE"


def ssh_content(said: dict[str, Any], key_passphrase: str | None = None) -> dict[str, Any]:
    """Make the inventory's `ssh` from the parameters; paths become absolute.

    Where a client's file is named, what has its default here is for that file to say. Raises
    InvalidInventory for a passphrase that is in no known kind of place.
    """
    plain = Ssh().model_dump(mode="json") if said["config"] else {}
    content = {
        field: str(Path(value).expanduser().absolute()) if field in _FILES else value
        for field, value in said.items()
        if value is not None and value != plain.get(field)
    }
    if key_passphrase is not None:
        kind, _, place = key_passphrase.partition("=")
        if kind not in SecretSource.model_fields or not place:
            problem = (
                "key_passphrase: says where the passphrase is, env=NAME, file=PATH or block=NAME, "
                "never the passphrase itself"
            )
            raise InvalidInventory("the parameters", (problem,))
        place = str(Path(place).expanduser().absolute()) if kind == "file" else place
        content["key_passphrase"] = {kind: place}
    return content


def provisional(cluster: str, hosts: list[str], ssh: dict[str, Any], unit: str) -> Inventory:
    """Make an inventory that only says where the hosts are; raises InvalidInventory."""
    rows = []
    for text in hosts:
        name, equals, address = text.partition("=")
        rows.append({"name": name.lower() if equals else _label(text), "address": address or text})
    content = {
        "name": cluster,
        "hosts": rows,
        "even_members": True,
        "ssh": ssh,
        "etcd": {"version": "3.5.0"},
        "paths": {"unit": f"/etc/systemd/system/{unit}"},
        "authority": {"certificate": "ca.pem", "key": "ca-key.pem", "passphrase": {"env": "NONE"}},
    }
    try:
        return Inventory.model_validate(content)
    except ValidationError as error:
        problems = tuple(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise InvalidInventory("the parameters", problems) from error


def _label(address: str) -> str:
    return "host-" + "".join(c if c.isalnum() else "-" for c in address.lower())


def target_path(cluster: str, output: str | None) -> Path:
    """Say where the inventory goes; raises Refused when something is there."""
    path = Path(output).expanduser().absolute() if output else CLUSTERS / f"{cluster}.yaml"
    if path.exists():
        other = parameter(output="FILE")
        raise Refused(f"{path} exists and is left alone; move it away, or name another: {other}")
    return path


@step("read etcd on {host}")
async def read_etcd(run: Run, host: HostConnection) -> FoundEtcd:
    """See how etcd runs on a host, and ask its member for the list; changes nothing.

    Raises Refused where there is no etcd.
    """
    unit = run.inventory.paths.service
    process, written, pods = await host.run(
        adoption.etcd_command(unit),
        hosts_settings.settings_command(unit),
        node_command(MANIFEST.parent),
    )
    found = adoption.parse_etcd(host.name, process)
    node = nodes.read_node(parse_node(host.name, pods))
    if node.pod is not None and not (found and found.is_running):
        found = take_pod(node)
    elif found is None or (not found.unit_path and not found.is_running):
        if found and (container := find_container(found)):
            raise Refused(container_sentence(found, container), host=host.name)
        others = found.others if found else ()
        runs = f"etcd runs under {', '.join(others)}, not" if others else "there is no etcd"
        units = [other for other in others if other.endswith(".service")]
        named = units[0] if len(units) == 1 else "UNIT"
        outsider = "" if others else ", or leave out a host that has no member"
        raise Refused(
            f"{runs} under {unit}, and no static pod in {MANIFEST.parent} is etcd's; name the unit "
            f"with {parameter(unit=named)}{outsider}",
            host=host.name,
        )
    else:
        found = take_settings(found, hosts_settings.parse_settings(unit, written))
    files = [found.setting(n) for n in ("CERT_FILE", "KEY_FILE", "TRUSTED_CA_FILE")]
    if not all(files):
        return found
    certificate, key, trusted = map(PurePosixPath, files)
    url = urlsplit(find_url(found, "ADVERTISE_CLIENT_URLS"))
    peers = PurePosixPath(found.setting("PEER_TRUSTED_CA_FILE") or trusted)
    beside, asked, programs, peer_file = await host.run(
        adoption.beside_command(trusted, certificate),
        # Its own port: a second etcd on the host has another.
        adoption.members_command(certificate, key, trusted, url.hostname or "", url.port or 0),
        system.programs_command(PurePosixPath(found.program or "/").parent, ("etcd",)),
        read_file_command(peers),
        keep_going=True,
    )
    text, keys, others = adoption.parse_beside(beside)
    version = next((p.version for p in system.parse_programs(programs)), None)
    peer = parse_file(peer_file)
    found = replace(
        found,
        trusted_text=text,
        keys_of_authority=keys,
        files_beside=others,
        version=found.version or version,
        authorities=_fingerprints(text),
        peer_authorities=_fingerprints(peer.text if peer else None),
    )
    pairs, served = await _read_pairs(host, find_pairs(found), text)
    signer = text if text.count(_BEGIN) == 1 else pick_signer(served, text)
    found = replace(
        found, pairs=pairs, authority_text=signer, authority=read_leaf(signer) if signer else None
    )
    answer = adoption.parse_members(asked)
    try:
        members = wire.parse_members(wire.parse_answer(answer or b""))
    except (wire.NotEtcd, wire.GatewayError) as error:
        return replace(found, told=(str(error),))
    return replace(found, members=members)


def _fingerprints(text: str | None) -> frozenset[str] | None:
    try:
        return frozenset(each.fingerprint for each in read_bundle(text or ""))
    except CertificateRefused:
        return None


async def _read_pairs(
    host: HostConnection, pairs: dict[Role, FoundPair], trusted: str
) -> tuple[dict[Role, FoundPair], str]:
    """Read what each pair is, and whose its files are; the second part is the server's text."""
    commands = [
        command
        for pair in pairs.values()
        for command in (
            read_file_command(pair.certificate),
            read_file_command(pair.key, with_text=False),
        )
    ]
    results = iter(await host.run(*commands, keep_going=True))
    read, server = {}, ""
    for role, pair in pairs.items():
        certificate = parse_file(next(results))
        key = parse_file(next(results), with_text=False)
        access = None
        if certificate is not None and key is not None:
            access = FileAccess(
                owner=key.owner,
                group=key.group,
                certificate_mode=certificate.mode,
                key_mode=key.mode,
            )
        pem = certificate.text or "" if certificate else ""
        server = pem if role is Role.SERVER else server
        read[role] = replace(
            pair,
            leaf=read_leaf(pem),
            access=access,
            intermediate=find_intermediate(pem, trusted),
        )
    return read, server


async def read_all(run: Run) -> tuple[FoundEtcd, ...]:
    """See every host at once; what fails on any is raised together."""
    return await together(read_etcd(run, host) for host in run.hosts.values())


def compose(
    run: Run, found: tuple[FoundEtcd, ...], ssh: dict[str, Any], path: Path, given: frozenset[str]
) -> tuple[Inventory, str]:
    """Make the inventory, as it will be read from `path`, and its text; writes nothing.

    The operator has `given` the names of these hosts. Raises Refused and InvalidInventory.
    """
    addresses = {host.name: host.ssh_address for host in run.inventory.hosts}
    content = adopt(run.inventory.name, found, addresses, ssh, given)
    try:
        inventory = Inventory.model_validate(content)
    except ValidationError as error:
        problems = tuple(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']} (found: {e['input']!r})"
            for e in error.errors()
        )
        raise InvalidInventory("what was found", problems) from error
    inventory = inventory.model_copy(update={"paths": _without_defaults(inventory)})
    document = CommentedMap(inventory.model_dump(mode="json", exclude_defaults=True))
    document["topology"] = str(inventory.topology)
    document.yaml_set_start_comment(HEAD)
    if inventory.authority.on_hosts:
        del document["authority"]  # as for every stacked cluster
    else:
        document.yaml_set_comment_before_after_key("authority", before=AUTHORITY)
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 100
    yaml.dump(document, stream)
    text = stream.getvalue()
    return parse_inventory(text, path), text


def _without_defaults(inventory: Inventory) -> Any:  # noqa: ANN401 - pydantic's copy
    """Leave out paths that are what they would be without them."""
    paths = inventory.paths
    plain = inventory.model_copy(
        update={"paths": paths.model_copy(update={"pairs": {}, "trusted": None})}
    )
    pairs = {role: files for role, files in paths.pairs.items() if files != plain.pair_files(role)}
    trusted = None if paths.trusted == plain.trusted else paths.trusted
    return paths.model_copy(update={"pairs": pairs, "trusted": trusted})


@step("write the inventory", retry_delays_seconds=())
async def write_inventory(
    run: Run, path: Path, text: str, inventory: Inventory, found: tuple[FoundEtcd, ...]
) -> bool:
    """Write the inventory, and the authority's certificate, where there is none; both or none."""

    def write() -> list[Path]:
        signer, certificate = _common_signer(found), inventory.authority.certificate
        made = []
        try:
            if signer and not certificate.exists():
                write_private(certificate, signer.encode(), 0o644)
                made.append(certificate)
            write_private(path, text.encode(), 0o644)
        except OSError as error:
            for file in made:
                file.unlink()
            raise Refused(f"{error.filename}: {error.strerror}; nothing was written") from error
        return made

    made = await asyncio.to_thread(write)
    run.journal.append(Event.PROGRESS, text=f"wrote {' and '.join(map(str, (path, *made)))}")
    return True


async def judge(inventory: Inventory, found: tuple[FoundEtcd, ...]) -> tuple[str, ...]:
    """Say what is wrong with the certificates, as check_certificates would, and who shares them."""
    trusted = tuple(
        one.authority_text.encode() for one in found[:1] if one.authority and one.authority_text
    )
    async with open_run(inventory, "adopt_cluster") as run:
        checked, shared = await both(
            together(check_host(run, host) for host in run.hosts.values()),
            see_all(run, run.hosts, trusted),
        )
    findings = [finding for rows in checked for row in rows for finding in row.findings]
    wrong = ((f.host, f"{Path(f.path).name}: {f.sentence}") for f in findings)
    return group_remarks((*wrong, *adoption_rows(shared)))


async def publish(
    run: Run,
    path: Path,
    text: str,
    found: tuple[FoundEtcd, ...],
    given: frozenset[str],
    differences: tuple[str, ...],
) -> None:
    """Publish the inventory, what runs, and what the operator should see to."""
    table = adoption_table(found)
    remarks = (*_authority_remarks(found), *find_remarks(name_hosts(found, given)), *differences)
    told = on_a_screen(remarks)
    run.journal.append(Event.OBSERVED, columns=table.columns, rows=table.rows, problems=told)
    await frame.publish(
        markdown=adoption_markdown(run.inventory.name, str(path), text, table, remarks),
        key=artifact_key("adopt_cluster", run.inventory.name),
        description=f"{run.inventory.name}, as found on {len(found)} hosts",
    )


def _authority_remarks(found: tuple[FoundEtcd, ...]) -> tuple[str, ...]:
    if any(one.node for one in found):
        return authority_remarks(found)
    text, own = found[0].trusted_text or "", _common_signer(found)
    if own is None and text.count(_BEGIN) > 1:
        return (
            "the trusted file holds several authorities, and none signed all members' pairs: put "
            "the one that signs, and its key, where `authority` says",
        )
    signer = find_signer(own or "", own or "")
    if signer is None:
        return ("the trusted authority is not a root; the runbooks can only sign with a root",)
    return (
        f"the authority's key was not looked for and is not here: put the key of "
        f"'{signer.common_name}' where authority.key says, then rotate_certificates can renew",
        *(
            f"the trusted file has a further authority, '{each.common_name}' (until "
            f"{each.not_after:%Y-%m-%d}): whoever has its certificates is let in"
            for each in read_bundle(text)
            if each.fingerprint != signer.fingerprint
        ),
    )


def _common_signer(found: tuple[FoundEtcd, ...]) -> str | None:
    """Get the authority that signed the pairs of all hosts, PEM; None where there is none."""
    signers = {_fingerprints(one.authority_text) for one in found}
    return found[0].authority_text if len(signers) == 1 else None
