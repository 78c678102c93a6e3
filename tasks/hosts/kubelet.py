"""A static pod that the kubelet keeps running: which process is its, its settings, what it said.

Looks only. A changed manifest or a restart goes by the kubelet's own laws, which no single command
keeps, so that none of those that change something is written here.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.restarts import NextCommand
from tasks.model.errors import Refused
from tasks.model.member_settings import SettingsFiles, TextFile
from tasks.model.observation import ServiceState, ServiceStatus

PODS = r"""
pod_group() { grep -o -m 1 'kubepods.*' "/proc/$1/cgroup" 2>/dev/null; }
# systemd's driver writes a UID with _ for -, in the name of a slice.
pod_of() { local uid; uid=$(pod_group "$1" |
    sed -nE 's/.*pod([0-9a-f][0-9a-f_-]+)(\.slice)?\/.*/\1/p' | tr _ -)
  [ -z "$uid" ] || ls -d /var/log/pods/*_"$uid" 2>/dev/null | tail -n 1 || :; }
pod_etcds() { local pid; for pid in $(pgrep '^etcd' || :); do
    pod_group "$pid" > /dev/null || continue
    case $(cat "/proc/$pid/comm" 2>/dev/null) in etcd | etcd[-_.v0-9]*) echo "$pid" ;; esac
  done; }
own_etcd() { local pid; for pid in $(pod_etcds); do
    case $(pod_of "$pid") in */kube-system_etcd-*) echo "$pid"; return ;; esac
  done; }
""".lstrip()
"""Shell: `pod_etcds` tells the etcds in pods, `pod_of PID` a pod's directory of logs, whose name is
NAMESPACE_NAME_UID whatever runs the containers; `own_etcd` tells the one that is a static pod."""


@dataclass(frozen=True, slots=True)
class StaticPod:
    """A member that the kubelet runs by a manifest: it is found by its control group."""

    manifest: PurePosixPath

    @property
    def name(self) -> str:
        """What an operator knows it by."""
        return str(self.manifest)

    @property
    def group(self) -> str:
        """Shell that puts the control group of the pod's processes into `own`."""
        return f'{PODS}own=$(group_of "$(own_etcd)")\nown=${{own%/*}}; own=${{own#"${{outer%/}}"}}'

    @property
    def restart_words(self) -> str:
        """What an operator does to start the member anew."""
        return f"move {self.manifest} out of its directory, wait until etcd is gone, and back"

    def status_command(self) -> Command:
        """Tell whether it runs, and whether its manifest is there."""
        script = (
            f'{PODS}[ ! -e {quote(self.name)} ] || echo manifest\n[ -z "$(own_etcd)" ] || echo runs'
        )
        return Command("status of etcd's static pod", script)

    def parse_status(self, result: Result) -> ServiceStatus | None:
        """Read the answer of `status_command`; None where there is neither."""
        told = result.stdout.split()
        if not told:
            return None
        state = ServiceState.ACTIVE if "runs" in told else ServiceState.INACTIVE
        return ServiceStatus(state, is_enabled="manifest" in told)

    def start_command(self) -> Command:
        """Not done here; raises Refused."""
        raise self._refusal()

    def stop_command(self) -> Command:
        """Not done here; raises Refused."""
        raise self._refusal()

    def restart_command(self, *, wait: bool = True) -> Command:
        """Not done here; raises Refused."""
        del wait
        raise self._refusal()

    def _refusal(self) -> Refused:
        return Refused(f"{self.manifest}: a static pod is started and stopped by the kubelet alone")

    def reload_command(self) -> Command:
        """Do nothing: the kubelet reads its directory by itself."""
        return Command("leave the manifest to the kubelet", ":")

    def last_lines_command(self, lines: int = 20) -> Command:
        """Tell the last lines that the pod logged, its newest container's."""
        script = (
            "newest=$(ls -t /var/log/pods/kube-system_etcd-*/etcd/*.log 2>/dev/null | head -n 1)\n"
            # The runtime's own words stand before each: time, stream, whether the line is whole.
            f'[ -z "$newest" ] || tail -n {lines} "$newest" | cut -d " " -f 4-'
        )
        return Command("last lines of etcd's static pod", script)

    def last_words_command(self) -> Command:
        """Tell what the pod's newest container logged."""
        return Command("last words of etcd's static pod", self.last_lines_command(200).script)

    def next_command(self) -> Command:
        """Do nothing: the kubelet takes a changed manifest at once, no start is waited for."""
        return Command("what the kubelet would start next", ":")

    def parse_next(self, result: Result) -> NextCommand | None:
        """Tell that there is nothing that waits."""
        del result
        return None

    def settings_command(self) -> Command:
        """Tell the manifest's text."""
        path = quote(self.name)
        return Command(
            "what says how etcd's static pod starts",
            f"uname -n\n[ ! -r {path} ] || base64 -w0 < {path}",
        )

    def parse_settings(self, result: Result) -> SettingsFiles:
        """Read the answer of `settings_command`; no manifest where there is none."""
        host_name, _, text = result.stdout.partition("\n")
        manifest = None
        if text.strip():
            decoded = base64.b64decode(text).decode(errors="replace")
            manifest = TextFile(self.name, decoded)
        return SettingsFiles("", host_name, (), (), manifest)

    def verification(self, path: PurePosixPath) -> str | None:
        """Tell that nothing on the host can check a manifest."""
        del path
        return None
