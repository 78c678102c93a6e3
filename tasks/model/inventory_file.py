"""Reading an inventory file, with errors that an operator can act on.

Every problem of the file is reported at once: the field's path, what is wrong, and an example
that is right. Nothing on a host is touched here.
"""

from __future__ import annotations

import os
import re
from copy import deepcopy
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from tasks.model.certificates import read_cfssl_policy
from tasks.model.errors import InvalidInventory, Refused
from tasks.model.inventory import Inventory
from tasks.model.machines import Host, Ssh, SshOverride
from tasks.model.pointers import parameter

S = TypeVar("S", Ssh, SshOverride)

HOST_FIELDS = tuple(field for field in Host.model_fields if field != "ssh")
"""What of a host goes with the machine; its SSH options stay with its place."""
ON_HOSTS = ("clients", "kube_apiservers", "load_balancers")
"""What may be on a member's host, or at an address of its own."""
CLUSTERS = Path(
    os.environ.get("ETCD_RUNBOOKS_CLUSTERS")
    or Path(__file__).parents[2] / "deployments" / "clusters"
)
"""A team has them in a repository of their own (docs/team.md)."""


def find_inventory(cluster: str) -> Path:
    """Find a cluster's file: a path to a .yaml file, or a name under deployments/clusters.

    Raises InvalidInventory that lists the clusters there are.
    """
    path = Path(cluster).expanduser()
    if path.suffix not in {".yaml", ".yml"}:
        path = CLUSTERS / f"{cluster}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CLUSTERS.glob("*.yaml"))) or "none yet"
        problem = f"there is no such inventory file; clusters in {CLUSTERS}: {known}"
        raise InvalidInventory(str(path), (problem,))
    return path.resolve()


def list_clusters() -> list[str]:
    """List the inventories under deployments/clusters, the example left out."""
    return [path.stem for path in sorted(CLUSTERS.glob("*.yaml")) if path.stem != "example"]


def choose_clusters(named: list[str] | None) -> list[str]:
    """Choose the clusters of a runbook for any number: those named, or all; Refused for none."""
    if not (clusters := named or list_clusters()):
        ways = parameter(clusters=("CLUSTER",))
        raise Refused(f"there is no inventory in {CLUSTERS}; name one with {ways}")
    return clusters


@dataclass(frozen=True, slots=True)
class InventoryFile:
    """An inventory as it was read: where it lies, its text, and what that says."""

    path: Path
    text: str
    inventory: Inventory


def load_inventory(cluster: str) -> Inventory:
    """Read a cluster's inventory, as `read_inventory` does, for what it says alone."""
    return read_inventory(cluster).inventory


def read_inventory(cluster: str) -> InventoryFile:
    """Read, check and complete a cluster's inventory; `cluster` is a name or a path.

    Paths in it come back absolute (relative ones are relative to the file; ~ is the user's
    home), and cfssl's files are laid over the certificate policy. Raises InvalidInventory.
    """
    path = find_inventory(cluster)
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise InvalidInventory(str(path), (f"not YAML: {error}",)) from error
    return InventoryFile(path, text, parse_inventory(text, path))


def parse_inventory(text: str, path: Path) -> Inventory:
    """Check and complete an inventory's text, as `read_inventory` does for the file `path`."""
    try:
        content = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InvalidInventory(str(path), (f"{line}not YAML: {error.problem}",)) from error
    except YAMLError as error:
        raise InvalidInventory(str(path), (f"not YAML: {error}",)) from error
    if not isinstance(content, dict):
        raise InvalidInventory(str(path), ("the file holds no mapping; begin with 'name: …'",))
    try:
        inventory = Inventory.model_validate(content)
    except ValidationError as error:
        raise InvalidInventory(str(path), _problems(error)) from error
    return _completed(inventory, path)


def edit_hosts(
    text: str, removed: frozenset[str], added: dict[str, tuple[Host, str | None]]
) -> str:
    """Rewrite an inventory's `hosts`, all else and its comments as they were.

    What is on a host that is removed goes on at that machine's address. `added` is by name: the
    host, and the name of the one whose place and SSH options it takes, if it has no entry yet.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(*_indents(text))
    document = yaml.load(text)
    hosts = document["hosts"]
    listed = {host["name"] for host in hosts}
    taken = {replaced for host, replaced in added.values() if replaced and host.name not in listed}
    _strand(document, {host["name"]: host for host in hosts if host["name"] in removed})
    for host, replaced in added.values():
        values = _quoted(host.model_dump(mode="json", exclude_defaults=True))
        name = host.name if host.name in listed else replaced
        place = next((i for i, h in enumerate(hosts) if h["name"] == name), None)
        if place is None:
            hosts.append(values)
            continue
        old = hosts[place]
        for field in HOST_FIELDS:
            if field in values:
                old[field] = values[field]
            else:
                old.pop(field, None)
    for index in reversed(range(len(hosts))):
        if hosts[index]["name"] in removed - taken:
            del hosts[index]
    stream = StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _quoted(value: Any) -> Any:  # noqa: ANN401 - JSON's
    """Quote texts with a colon, as IPv6 addresses are: bare ones end a key within braces."""
    if isinstance(value, dict):
        return {key: _quoted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_quoted(each) for each in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and ":" in value else value


def _strand(document: Any, gone: dict[str, Any]) -> None:  # noqa: ANN401 - ruamel's
    """Say of what is on hosts that go where that machine is."""
    for field in ON_HOSTS:
        for other in document.get(field) or ():
            host = gone.get(other.get("host"))
            if host is None:
                continue
            del other["host"]
            other["address"] = host.get("address") or host["name"]
            if "ssh" in host and "ssh" not in other:
                other["ssh"] = deepcopy(host["ssh"])


def _indents(text: str) -> tuple[int, int, int]:
    """Find how the file indents its mappings and lists, so that it comes back the same."""
    dash = re.search(r"^hosts:[^\n]*\n(?:[ ]*#[^\n]*\n|\n)*([ ]*)-", text, re.MULTILINE)
    offset = len(dash.group(1)) if dash else 2
    return 2, offset + 2, offset


def _completed(inventory: Inventory, file: Path) -> Inventory:
    base = file.parent

    def absolute(path: Path) -> Path:
        return base / path.expanduser()

    def logged_in(part: S) -> S:
        # What the file does not say must stay unsaid: an ssh.config may say it.
        update: dict[str, Any] = {
            field: absolute(value)
            for field in part.model_fields_set & {"key", "known_hosts", "config"}
            if (value := getattr(part, field))
        }
        source = part.key_passphrase
        if source is not None and source.file:
            found = source.model_copy(update={"file": absolute(source.file)})
            update["key_passphrase"] = found
        return part.model_copy(update=update)

    ssh, authority, binaries = inventory.ssh, inventory.authority, inventory.etcd.binaries
    passphrase = authority.passphrase
    changes: dict[str, Any] = {
        "ssh": logged_in(ssh),
        **{
            field: tuple(
                other.model_copy(update={"ssh": logged_in(other.ssh)})
                for other in getattr(inventory, field)
            )
            for field in ("hosts", "clients", "kube_apiservers", "load_balancers")
        },
        "authority": authority.model_copy(
            update={
                "certificate": absolute(authority.certificate),
                "key": absolute(authority.key),
                "passphrase": passphrase.model_copy(
                    update={"file": passphrase.file and absolute(passphrase.file)}
                ),
            }
        ),
    }
    if inventory.login:
        login, password = inventory.login, inventory.login.password
        changes["login"] = login.model_copy(
            update={
                "password": password.model_copy(
                    update={"file": password.file and absolute(password.file)}
                )
            }
        )
    if binaries.source != "installed":
        changes["etcd"] = inventory.etcd.model_copy(
            update={"binaries": binaries.model_copy(update={"path": absolute(binaries.path)})}
        )
    if inventory.cfssl_directory:
        try:
            changes["certificates"] = read_cfssl_policy(
                absolute(inventory.cfssl_directory), inventory.certificates
            )
        except ValidationError as error:
            problems = tuple(f"cfssl_directory: {text}" for text in _problems(error))
            raise InvalidInventory(str(file), problems) from error
        except ValueError as error:
            raise InvalidInventory(str(file), (f"cfssl_directory: {error}",)) from error
    return inventory.model_copy(update=changes)


def _problems(error: ValidationError) -> tuple[str, ...]:
    """One sentence for each problem; a container is not blamed for what is wrong inside it."""
    errors = error.errors()
    inner = {found["loc"][:depth] for found in errors for depth in range(1, len(found["loc"]))}
    return tuple(_sentence(found) for found in errors if found["loc"] not in inner)


def _sentence(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    where = ""
    for part in error["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
    where = where.removeprefix(".")
    if error["type"] == "extra_forbidden":
        what = f"no such field; known here: {', '.join(_fields_beside(error['loc']))}"
    elif error["type"] == "missing":
        what = "is missing"
    else:
        what = error["msg"].removeprefix("Value error, ")
        if not isinstance(error["input"], dict | list) and repr(error["input"]) not in what:
            what += f" (found: {error['input']!r})"
    example = _example(error["loc"])
    return f"{where}: {what}{example}" if where else f"{what}{example}"


def _models_at(location: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """List the models that the mapping at a location may be."""
    found: list[type[BaseModel]] = [Inventory]
    for part in location:
        if isinstance(part, int) or part in {"installed", "archive", "directory"}:
            continue
        fields = [m.model_fields[part].annotation for m in found if part in m.model_fields]
        if not fields:  # a key of a mapping, such as a role
            continue
        found = [m for annotation in fields for m in _models_in(annotation)]
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401 - any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _fields_beside(location: tuple[int | str, ...]) -> list[str]:
    return sorted({name for model in _models_at(location[:-1]) for name in model.model_fields})


def _example(location: tuple[int | str, ...]) -> str:
    if not location:
        return ""
    *parents, last = location
    while isinstance(last, int) and parents:
        *parents, last = parents
    for model in _models_at(tuple(parents)):
        field = model.model_fields.get(str(last))
        if field is not None and field.examples:
            return f"; right: {last}: {field.examples[0]}"
    return ""
