"""Adoption: what a found etcd is set to, by its process, or by its unit or its pod's manifest.

Looks at nothing; gives what was seen its settings.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from tasks.config.environment import read_environment
from tasks.config.flags import BOOLEANS, CONFIG_FILE
from tasks.config.settings import read_process, read_settings
from tasks.model.adoption import FoundEtcd
from tasks.model.member_settings import (
    Settings,
    SettingsFiles,
    TextFile,
    flag_name,
    parse_boolean,
    variable_name,
)
from tasks.model.nodes import NodeObservation
from tasks.plans.nodes import find_strays

DATA_DIRECTORY = "ETCD_DATA_DIR"
POD_FILES = frozenset(
    f"ETCD_{name}"
    for name in (
        "CERT_FILE KEY_FILE TRUSTED_CA_FILE PEER_CERT_FILE PEER_KEY_FILE PEER_TRUSTED_CA_FILE "
        "DATA_DIR WAL_DIR"
    ).split()
)


def take_settings(found: FoundEtcd, files: SettingsFiles) -> FoundEtcd:
    """Give what was found its settings: the process's, or what its unit's files would give it."""
    written = read_settings(files)
    taken = written
    if found.is_running:
        taken = read_process(found.arguments, found.variables, files, f"{files.unit}'s process")
    named = written.value(CONFIG_FILE)
    settings = {name: _normal(name, value) for name, value in taken.variables().items()}
    if not taken.faults:
        settings.setdefault(DATA_DIRECTORY, f"{settings.get('ETCD_NAME', 'default')}.etcd")
    return replace(
        found,
        program=found.program or written.program,
        settings={name: _absolute(found, name, value) for name, value in settings.items()},
        environment_file=next(
            (f.path for f in files.further if f.path != named and _sets_etcd(f)), None
        ),
        unknown=tuple(map(str, taken.faults)),
        places=_places(written),
        skipped=tuple(map(str, (*written.ignored, *written.shadowed))),
    )


def take_pod(node: NodeObservation) -> FoundEtcd:
    """Make what was found of a node: its process's settings, or else its manifest's.

    Files are given their paths on the host; one that has none is unknown.
    """
    process, taken = node.process, node.running or node.settings
    settings = {name: _normal(name, value) for name, value in taken.variables().items()}
    unknown = [*find_strays(node), *map(str, dict.fromkeys((*node.settings.faults, *taken.faults)))]
    for name in POD_FILES & set(settings):
        there = node.mounts.on_host(PurePosixPath(settings[name]))
        if there is None:
            unknown.append(f"--{flag_name(name)}={settings[name]} lies in no volume of the host's")
        else:
            settings[name] = str(there)
    return FoundEtcd(
        host=node.host,
        unit_path="",
        environment_file=None,
        account=process.account if process else "root",
        program="",
        version=process.version if process else None,
        is_running=process is not None,
        settings=settings,
        arguments=process.arguments if process else (),
        variables=process.variables if process else {},
        unknown=tuple(unknown),
        places=_places(node.settings),
        hostname=node.hostname,
        node=node,
    )


def _places(written: Settings) -> dict[str, str]:
    return {variable_name(name): str(setting.place) for name, setting in written.items()}


def _sets_etcd(file: TextFile) -> bool:
    """Whether a file gives etcd any variable."""
    return any(
        name.startswith("ETCD_") for name in read_environment(file.path, file.text).variables
    )


def _normal(name: str, value: str) -> str:
    """Write a switch in one way: True, 1 and t are true."""
    try:
        is_on = parse_boolean(value)
    except ValueError:
        return value
    return str(is_on).lower() if flag_name(name) in BOOLEANS else value


def _absolute(found: FoundEtcd, name: str, value: str) -> str:
    """Write a path as it is from everywhere; etcd's own begin where it is started."""
    is_path = name in (DATA_DIRECTORY, "ETCD_WAL_DIR") or name.endswith("_FILE")
    return str(PurePosixPath(found.directory) / value) if is_path and value else value
