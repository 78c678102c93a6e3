"""A static pod that the kubelet keeps running: which process is its, its settings, what it said.

The node's API server lives on this etcd alone and goes with it. How both are taken out, put in and
started anew is in `pods`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts import pods
from tasks.hosts.batch import Command, Result
from tasks.hosts.pods import PODS
from tasks.hosts.restarts import NextCommand
from tasks.model.member_settings import SettingsFiles, TextFile
from tasks.model.observation import ServiceState, ServiceStatus
from tasks.model.pods import PodFile, apiserver_pod, etcd_pod


@dataclass(frozen=True, slots=True)
class StaticPod:
    """A member that the kubelet runs by a manifest: it is found by its control group.

    `restarts_kubelet`: whether the kubelet may be restarted, so that it has no back-off.
    """

    manifest: PurePosixPath
    restarts_kubelet: bool = True

    @property
    def name(self) -> str:
        """What an operator knows it by."""
        return str(self.manifest)

    @property
    def keeper(self) -> str:
        """Who starts it."""
        return "the kubelet"

    @property
    def group(self) -> str:
        """Shell that puts the control group of the pod's processes into `own`."""
        return f'{PODS}own=$(group_of "$(own_etcd)")\nown=${{own%/*}}; own=${{own#"${{outer%/}}"}}'

    @property
    def restart_words(self) -> str:
        """What an operator does to start the member anew."""
        return f"move {self.manifest} out of its directory, wait until etcd is gone, and back"

    def status_command(self) -> Command:
        """Tell whether it runs, whether its manifest is there, and whether it is taken out."""
        kept = quote(str(self._pod.kept))
        script = (
            f"{PODS}[ ! -e {quote(self.name)} ] || echo manifest\n"
            f'[ ! -e {kept} ] || echo kept\n[ -z "$(own_etcd)" ] || echo runs'
        )
        return Command("status of etcd's static pod", script)

    def parse_status(self, result: Result) -> ServiceStatus | None:
        """Read the answer of `status_command`; None where there is none of them."""
        told = result.stdout.split()
        if not told:
            return None
        state = ServiceState.ACTIVE if "runs" in told else ServiceState.INACTIVE
        return ServiceStatus(state, is_enabled="manifest" in told)

    def start_command(self) -> Command:
        """Put its manifest in, if it was taken out, and wait until the kubelet has started it."""
        return pods.start_command(self._pod)

    def stop_command(self) -> Command:
        """Take the API server's manifest out and then its own, and wait until both are gone."""
        return pods.stop_command(self._pod, self._apiserver, restarts_kubelet=self.restarts_kubelet)

    def pause_command(self) -> Command:
        """Take the API server's manifest out alone, and wait until it is gone."""
        return pods.pause_command(self._apiserver, restarts_kubelet=self.restarts_kubelet)

    def restart_command(self, *, wait: bool = True) -> Command:
        """End its process and wait until the kubelet has started it again; nothing is edited."""
        del wait
        return pods.restart_command(self._pod, restarts_kubelet=self.restarts_kubelet)

    def restart_apiserver_commands(self) -> tuple[Command, ...]:
        """Restart the node's API server, and wait until it is ready."""
        again = pods.restart_command(self._apiserver, restarts_kubelet=self.restarts_kubelet)
        return again, pods.resume_command(self._apiserver)

    def revive_apiserver_commands(self, *, restarts: bool) -> tuple[Command, ...]:
        """Put the API server in, past the kubelet's back-off, and wait until it is ready."""
        commands = self.restart_apiserver_commands()[:1] if restarts else ()
        resume = pods.resume_command(self._apiserver, past_back_off=self.restarts_kubelet)
        return (*commands, resume)

    def resume_command(self) -> Command:
        """Put the API server's manifest in, if it was taken out, and wait until it is ready."""
        return pods.resume_command(self._apiserver)

    @property
    def _pod(self) -> PodFile:
        return etcd_pod(self.manifest)

    @property
    def _apiserver(self) -> PodFile:
        return apiserver_pod(self.manifest)

    def reload_command(self) -> Command:
        """Do nothing: the kubelet reads its directory by itself."""
        return Command("leave the manifest to the kubelet", ":")

    def last_lines_command(self, lines: int = 20) -> Command:
        """Tell the last lines that the pod logged, its newest container's."""
        script = (
            f'{PODS}newest=$(ls -t /var/log/pods/kube-system_etcd-"$(node_name)"_*/etcd/*.log '
            "2>/dev/null | head -n 1) || :\n"
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
        """Tell the manifest's text, also of one that is taken out, and where it lies."""
        places = f"{quote(self.name)} {quote(str(self._pod.kept))}"
        return Command(
            "what says how etcd's static pod starts",
            f"uname -n\nfor path in {places}; do\n"
            '  if [ -r "$path" ]; then echo "$path"; base64 -w0 < "$path"; break; fi\ndone',
        )

    def parse_settings(self, result: Result) -> SettingsFiles:
        """Read the answer of `settings_command`; no manifest where there is none."""
        host_name, _, rest = result.stdout.partition("\n")
        path, _, text = rest.partition("\n")
        manifest = None
        if text.strip():
            decoded = base64.b64decode(text).decode(errors="replace")
            manifest = TextFile(path, decoded, mode="0600")
        return SettingsFiles("", host_name, (), (), manifest)

    def verification(self, path: PurePosixPath) -> str | None:
        """Tell that nothing on the host can check a manifest."""
        del path
        return None
