"""What keeps a member running on its host: one interface, whatever it is.

Pure commands, and parsers of what the host answers. Who supervises which member, its layout says.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Protocol

from tasks.hosts.batch import Command, Result
from tasks.hosts.kubelet import StaticPod
from tasks.hosts.restarts import NextCommand
from tasks.hosts.services import SystemdUnit
from tasks.model.layout import Layout
from tasks.model.member_settings import SettingsFiles
from tasks.model.observation import ServiceStatus


class Supervisor(Protocol):
    """Whoever starts a member, starts it again, and knows which processes are its own."""

    @property
    def name(self) -> str:
        """What an operator knows it by."""
        ...

    @property
    def keeper(self) -> str:
        """Who starts it, in words."""
        ...

    @property
    def group(self) -> str:
        """Shell that puts the control group of the member's processes into `own`."""
        ...

    @property
    def restart_words(self) -> str:
        """What an operator types on the host to start the member anew."""
        ...

    def status_command(self) -> Command:
        """Tell its state."""
        ...

    def parse_status(self, result: Result) -> ServiceStatus | None:
        """Read the answer of `status_command`; None when there is no such member."""
        ...

    def start_command(self) -> Command:
        """Let the member start, now and after a reboot, without waiting; prints what changed."""
        ...

    def stop_command(self) -> Command:
        """Stop the member, and keep it from starting again; prints what changed."""
        ...

    def restart_command(self, *, wait: bool = True) -> Command:
        """Restart the member; `wait` until it has a quorum, which ends after a while."""
        ...

    def restart_apiserver_commands(self) -> tuple[Command, ...]:
        """Restart the API server that lives on the member alone; none where none does."""
        ...

    def revive_apiserver_commands(self, *, restarts: bool) -> tuple[Command, ...]:
        """Bring that API server back, in whatever state it is, or restart it; none where none is.

        Its member serves by then.
        """
        ...

    def reload_command(self) -> Command:
        """Let it read again how the member starts; prints what changed."""
        ...

    def last_lines_command(self, lines: int = 20) -> Command:
        """Tell the last lines that the member logged."""
        ...

    def last_words_command(self) -> Command:
        """Tell what the member logged during its last start."""
        ...

    def next_command(self) -> Command:
        """Tell the member's process, and what would be started in its place."""
        ...

    def parse_next(self, result: Result) -> NextCommand | None:
        """Read the answer of `next_command`; None when there is no such member."""
        ...

    def settings_command(self) -> Command:
        """Tell the texts of all files that say how the member starts."""
        ...

    def parse_settings(self, result: Result) -> SettingsFiles:
        """Read the answer of `settings_command`."""
        ...

    def verification(self, path: PurePosixPath) -> str | None:
        """Write the shell that fails for a bad "$new" of one of these files; None: none can."""
        ...


def supervisor(layout: Layout) -> Supervisor:
    """Say who supervises a host's member."""
    if layout.manifest is not None:
        return StaticPod(layout.manifest, layout.restarts_kubelet)
    return SystemdUnit(layout.service)
