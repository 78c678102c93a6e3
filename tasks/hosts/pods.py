"""Static pods on a host: taken out, put in and started anew by the kubelet's laws.

The laws (measured on kubelets of 1.34 and 1.37, whose pod workers and mirror pods make them):

- The kubelet runs every file of its directory whose name does not begin with a dot, so a manifest
  comes by rename from beside the directory, and goes there.
- A changed manifest is a new pod of the same name, which waits for the old one by retries of ten
  seconds: it goes in when the old process and the old pod's directory are gone, and a moment later.
- While its API server is connected, etcd takes its whole time-out to end, and the kubelet hangs in
  deleting a mirror pod: the API server goes first.
- A container that ends is started again after a back-off that grows and lies in the kubelet's
  memory: a kubelet that was restarted has none. A manifest that is put in again as it was is the
  same pod, with the back-off that it had. That counts from the container that ended last: where it
  is removed, the next begins at once.
- A kubelet that has not met its API server since it started stops no pod: it is stopped instead,
  and one that starts anew runs what the files say.

Every wait is on the process and the pod's directory, never on a mirror pod.
"""

from __future__ import annotations

from shlex import quote

from tasks.hosts.batch import Command
from tasks.hosts.files import CHANGED, UNCHANGED
from tasks.model.pods import PodFile

END_SECONDS = 90
"""Etcd takes 8 to 10 s to end, an API server 30, and a deaf kubelet 40 before it hears."""
START_SECONDS = 150
"""The kubelet starts a new pod after a second, or at a later retry; a deaf one after 80 s."""
SETTLE_SECONDS = 2
"""Between the end of a pod's directory and a changed manifest; with less, 11 to 16 s were seen."""
GRACE_SECONDS = 2
"""What an API server that answers nobody new has for the requests that it still has. Its watches
end with it in any case, after the 30 s that its pod is given."""
KUBELET_SECONDS = 60
MEET_SECONDS = 20
"""It says so half a second after its start; where its journal tells nothing, this is waited."""
CALM_SECONDS = 3
"""After it has met its API server it makes its mirror pods again, for a second or two, in its main
loop: with etcd ended meanwhile each call hangs for 34 s, and the kubelet with it (70 s seen)."""
BACK_OFF_SECONDS = 330
"""The kubelet's longest back-off is five minutes."""
PATIENCE_SECONDS = 20
"""Then a container that has not started is taken to wait for its back-off, up to five minutes long.
A kubelet that is restarted has none; without its API server it begins after 38 to 51 s."""
LIMIT_SECONDS = 3.0 * END_SECONDS + START_SECONDS
"""Of a command of this module, with what is around its waits."""

PODS = r"""
pod_group() { grep -o -m 1 'kubepods.*' "/proc/$1/cgroup" 2>/dev/null; }
# systemd's driver writes a UID with _ for -, in the name of a slice.
pod_of() { local uid; uid=$(pod_group "$1" |
    sed -nE 's/.*pod([0-9a-f][0-9a-f_-]+)(\.slice)?\/.*/\1/p' | tr _ -)
  [ -z "$uid" ] || ls -d /var/log/pods/*_"$uid" 2>/dev/null | tail -n 1 || :; }
pod_processes() { local pid; for pid in $(pgrep "^$1" || :); do
    pod_group "$pid" > /dev/null || continue
    case $(cat "/proc/$pid/comm" 2>/dev/null) in "$1" | "$1"[-_.v0-9]*) echo "$pid" ;; esac
  done; }
# A static pod is called after its node, which kubeadm may have given another name than uname's.
node_name() { local main words=
  main=$(systemctl show kubelet -p MainPID 2>/dev/null | cut -d= -f2-) || :
  [ "${main:-0}" = 0 ] || words=$(tr '\0' '\n' < "/proc/$main/cmdline")
  [ -n "$words" ] || words=$(tr ' "' '\n\n' < /var/lib/kubelet/kubeadm-flags.env 2>/dev/null) || :
  words=$(sed -n 's/^--hostname-override=//p' <<< "$words" | tail -n 1)
  tr A-Z a-z <<< "${words:-$(uname -n)}"; }
own_processes() { local pid node; node=$(node_name); for pid in $(pod_processes "$1"); do
    case $(pod_of "$pid") in */kube-system_"$1-$node"_*) echo "$pid" ;; esac
  done; }
# A static pod's UID is a hash, without dashes; its directory is the last that goes.
own_pods() { local dir uid other node; node=$(node_name)
  for dir in /var/lib/kubelet/pods/*/containers/"$1"; do
    [ -d "$dir" ] || continue
    uid=${dir%/containers/*}; uid=${uid##*/}
    case $uid in *-*) continue ;; esac
    other=$(ls -d /var/log/pods/*_"$uid" 2>/dev/null | tail -n 1 || :)
    case $other in "" | */kube-system_"$1-$node"_*) echo "$uid" ;; esac
  done; }
pod_etcds() { pod_processes etcd; }
own_etcd() { own_processes etcd | head -n 1; }
""".lstrip()
"""Shell: `pod_processes NAME` tells the processes of this name in pods, `pod_of PID` a pod's
directory of logs, whose name is NAMESPACE_NAME_UID whatever runs the containers; `own_processes`
tells the static pod's, and `own_pods` the UIDs of which the kubelet still has a directory."""

SEEN_API = r"""
kubelet_api() { local main words file
  main=$(systemctl show kubelet -p MainPID | cut -d= -f2-)
  [ "${main:-0}" != 0 ] || return 0
  words=$(tr '\0' '\n' < "/proc/$main/cmdline")
  file=$(sed -nE 's/^--kubeconfig=//p' <<< "$words" | tail -n 1)
  sed -nE 's/^[[:space:]]*server:[[:space:]]*"?([^" ]*).*/\1/p' "${file:-/dev/null}" | tail -n 1; }
# By the kubelet's own client: to anybody else a starting API server says 403. Or by anybody, for
# the kubelet's certificate may have ended.
said_by() { local url=$1; shift; curl --silent --insecure --max-time 3 --output /dev/null \
  --write-out '%{http_code}' "$@" "$url/readyz" 2>/dev/null; }
api_ready() { local pair=/var/lib/kubelet/pki/kubelet-client-current.pem
  [ -n "$1" ] && { [ "$(said_by "$1" --cert "$pair" --key "$pair")" = 200 ] ||
    [ "$(said_by "$1")" = 200 ]; }; }
kubelet_runs() { systemctl is-active --quiet kubelet; }
kubelet_said() { local invocation started
  invocation=$(systemctl show kubelet -p InvocationID | cut -d= -f2-)
  started="_SYSTEMD_INVOCATION_ID=$invocation"
  # Before systemd 232 a unit's start has no name of its own.
  [ -n "$invocation" ] || started="--boot _PID=$(systemctl show kubelet -p MainPID | cut -d= -f2-)"
  journalctl --no-pager --quiet --output=cat $started 2>/dev/null |
    grep -oE -e 'Successfully registered node|ode was previously registered' \
      -e 'Kubelet version' | sort -u; }
kubelet_met() { grep -q registered <<< "$(kubelet_said)"; }
kubelet_pid() { systemctl show kubelet -p MainPID | cut -d= -f2-; }
kubelet_age() { local age; age=$(ps -o etimes= -p "$(kubelet_pid)") || :; echo $((${age:-0})); }
ticks() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
older_than_kubelet() { # older_than_kubelet PID...: each of them, and there is one
  local pid since; since=$(ticks "$(kubelet_pid)")
  [ $# -gt 0 ] && [ -n "$since" ] || return 1
  for pid in "$@"; do [ "$(ticks "$pid")" -lt "$since" ] || return 1; done; }
kubelet_hears() { kubelet_runs || return 1
  ! api_ready "$(kubelet_api)" || return 0
  local said; said=$(kubelet_said)
  # What it has said at all is what its journal tells; of an empty one nothing is known.
  case $said in *registered*) return 0 ;; *version*) return 1 ;; *) return 0 ;; esac; }
"""
"""Shell: `api_ready URL` succeeds when an API server is ready, `kubelet_hears` when the kubelet has
met its API server since it started, by what it said: one that has not stops no pod and takes no
changed manifest."""

_WAIT = """
waited() { # waited SECONDS COMMAND...: until the command succeeds
  local until=$((SECONDS + $1)); shift
  until "$@"; do [ $SECONDS -lt $until ] || return 1; sleep 0.2; done; }
"""

_FORGET = (
    r"""
forget() { # forget NAME: removes its containers that have ended; fails when there is none
  local found id
  found=$(timeout 10 crictl ps --all --quiet --state exited \
    --label io.kubernetes.pod.namespace=kube-system --label io.kubernetes.container.name="$1" \
    --label io.kubernetes.pod.name="$1-$(node_name)" 2>/dev/null) || return 1
  [ -n "$found" ] || return 1
  for id in $found; do timeout 10 crictl rm "$id" > /dev/null 2>&1 || :; done; }
# Where nothing can be removed, the longest back-off is waited for.
start_limit() { if timeout 10 crictl ps --quiet > /dev/null 2>&1; then echo {start}
  else echo {longest}; fi; }
""".replace("{start}", str(START_SECONDS))
    .replace("{longest}", str(BACK_OFF_SECONDS))
    .strip()
)

_STOP = r"""
take_out() { # take_out MANIFEST KEPT
  [ -e "$1" ] || return 0
  mv -fT "$1" "$2"
  sync "${2%/*}" "${1%/*}"
  changed={changed}; }
ended() { [ -z "$(own_processes "$1")" ]; }
gone() { ended "$1" && [ -z "$(own_pods "$1")" ]; }
# A kubelet that is deaf is stopped: what is stopped then stays so.
end_by_hand() { local pod
  for pod in $(crictl pods --quiet --namespace kube-system --label \
      "io.kubernetes.pod.name=$1-$(node_name)"); do
    crictl stopp "$pod" > /dev/null || :
  done; }
"""


def stop_command(etcd: PodFile, apiserver: PodFile, *, restarts_kubelet: bool = True) -> Command:
    """Take a node's API server and its etcd out, and wait until both are gone.

    Prints CHANGED or UNCHANGED. Fails when one is still there after END_SECONDS; the manifests are
    out then, in a directory beside theirs. A kubelet that is deaf is stopped until a manifest goes
    in; where it must not be, this fails before anything is taken out.
    """
    manifest, kept = quote(str(etcd.manifest)), quote(str(etcd.kept))
    script = f"""
{_take_apiserver_out(apiserver, restarts_kubelet=restarts_kubelet)}
take_out {manifest} {kept}
if [ -n "$hears" ]; then
  waited {END_SECONDS} gone {etcd.container} || fail {manifest} {etcd.container}
else
  end_by_hand {etcd.container}
  waited {END_SECONDS} ended {etcd.container} || fail {manifest} {etcd.container}
fi
forget {etcd.container} || :
[ $changed = {UNCHANGED} ] || sleep {SETTLE_SECONDS}
echo $changed
"""
    return Command("take the manifests of the API server and of etcd out", script.strip())


def pause_command(apiserver: PodFile, *, restarts_kubelet: bool = True) -> Command:
    """Take a node's API server out alone, to change its manifest, as `stop_command` does."""
    script = f"""
{_take_apiserver_out(apiserver, restarts_kubelet=restarts_kubelet)}
[ -z "$hears" ] || waited {END_SECONDS} gone {apiserver.container} ||
  fail {quote(str(apiserver.manifest))} {apiserver.container}
[ $changed = {UNCHANGED} ] || sleep {SETTLE_SECONDS}
echo $changed
"""
    return Command("take the manifest of the API server out", script.strip())


def _take_apiserver_out(apiserver: PodFile, *, restarts_kubelet: bool) -> str:
    """Write the shell that takes an API server out and waits until its process has ended."""
    deaf = "hears=; systemctl stop kubelet"
    if not restarts_kubelet:
        deaf = (
            'echo "the kubelet has not met its API server since it started, so it would stop '
            'nothing, and the inventory forbids to restart it (restarts_kubelet)" >&2; exit 1'
        )
    other, other_kept = quote(str(apiserver.manifest)), quote(str(apiserver.kept))
    kept, manifests = apiserver.kept.parent, apiserver.manifest.parent
    return f"""
{PODS}{SEEN_API.strip()}
{_WAIT.strip()}
{_FORGET}
{_STOP.strip().replace("{changed}", CHANGED)}
changed={UNCHANGED}
install -d -m 0700 {quote(str(kept))}
[ "$(stat -c %d {quote(str(kept))})" = "$(stat -c %d {quote(str(manifests))})" ] || {{
  echo "{manifests} is a file system of its own: nothing can be renamed into it" >&2
  exit 1; }}
hears=yes
kubelet_hears || {{ {deaf}; }}
fail() {{ echo "the pod of $1 is still there {END_SECONDS} s after its manifest was taken out (to \
{kept}): process $(own_processes "$2" | xargs), pod $(own_pods "$2" | xargs)" >&2
  exit 1; }}
port=$(sed -nE 's/^ *- --secure-port=([0-9]+).*/\\1/p' {other} {other_kept} 2>/dev/null |
  head -n 1) || :
refuses() {{ ! (exec 3<>"/dev/tcp/127.0.0.1/${{port:-6443}}") 2>/dev/null; }}
take_out {other} {other_kept}
[ -n "$hears" ] || end_by_hand {apiserver.container}
waited {END_SECONDS} refuses || fail {other} {apiserver.container}
# Nobody new is answered now.
waited {GRACE_SECONDS} ended {apiserver.container} || {{
  pids=$(own_processes {apiserver.container}); [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || :
}}
waited {END_SECONDS} ended {apiserver.container} || fail {other} {apiserver.container}
forget {apiserver.container} || :""".strip()


def start_command(pod: PodFile) -> Command:
    """Put a manifest that was taken out back and wait until its process runs.

    Prints CHANGED or UNCHANGED. Fails when there is neither a manifest in place nor one that was
    taken out, and when nothing runs after START_SECONDS (or the longest back-off, where what has
    ended can't be removed); the manifest is then in place.
    """
    script = f"""
{PODS}{_WAIT.strip()}
{_put_in(pod)}
runs() {{ [ -n "$(own_processes {pod.container})" ]; }}
limit=$(start_limit)
waited "$limit" runs || {{
  echo "the kubelet has not started {pod.container} of {pod.manifest} within $limit s" >&2
  exit 1; }}
echo $changed
"""
    return Command(f"put {pod.manifest.name} in", script.strip())


def resume_command(pod: PodFile, *, past_back_off: bool = False) -> Command:
    """Put an API server's manifest back, if it was taken out, and wait until it is ready.

    It is asked at its own address, as its node's kubelet: 401, 403 and 500 are "not yet". With
    `past_back_off` the kubelet is restarted when nothing starts, although its API server is away:
    all manifests must be as they are to stay. Prints CHANGED or UNCHANGED; fails when it is not
    ready after START_SECONDS.
    """
    manifest = quote(str(pod.manifest))
    rescue = f"""
waited {PATIENCE_SECONDS} ready || [ -n "$(own_processes {pod.container})" ] ||
  systemctl restart kubelet"""
    script = f"""
{PODS}{SEEN_API.strip()}
{_WAIT.strip()}
{_put_in(pod)}
said() {{ sed -nE "s/^ *- --$1=\\"?([^\\" ]+).*/\\1/p" {manifest} | tail -n 1; }}
address=$(said advertise-address); port=$(said secure-port)
case $address in *:*) address="[$address]" ;; esac
# The old one may end slowly: a new one has another process.
ready() {{ [ -n "$(own_processes {pod.container})" ] &&
  api_ready "https://${{address:-127.0.0.1}}:${{port:-6443}}"; }}{rescue * past_back_off}
limit=$(start_limit)
waited "$limit" ready || {{
  echo "{pod.container} of {pod.manifest} is not ready after $limit s" >&2; exit 1; }}
echo $changed
"""
    return Command(f"put {pod.manifest.name} in and wait until it is ready", script.strip())


def there_command(pod: PodFile) -> Command:
    """Fail where a manifest is neither in place nor taken out."""
    manifest, kept = quote(str(pod.manifest)), quote(str(pod.kept))
    script = (
        f"[ -e {manifest} ] || [ -e {kept} ] || "
        f'{{ echo "there is neither {pod.manifest} nor {pod.kept}" >&2; exit 1; }}'
    )
    return Command(f"look for {pod.manifest.name}", script)


def resume_live_command(pod: PodFile, livez: str) -> Command:
    """Put an API server's manifest back, if it was taken out, and wait until `livez` answers.

    Prints CHANGED or UNCHANGED; fails when nothing is live after START_SECONDS.
    """
    script = f"""
{_WAIT.strip()}
{_put_in(pod)}
live() {{ curl --fail --silent --insecure --max-time 5 {quote(livez)} > /dev/null; }}
waited {START_SECONDS} live || {{
  echo "no kube-apiserver of {pod.manifest} is live at {livez} after {START_SECONDS} s" >&2
  exit 1; }}
echo $changed
"""
    return Command(f"put {pod.manifest.name} in and wait until it is live", script.strip())


def restart_command(pod: PodFile, *, restarts_kubelet: bool = True) -> Command:
    """End a pod's process at once and wait until the kubelet has started it again.

    The write-ahead log makes this safe for etcd. The kubelet is restarted before, so that it has no
    back-off, while its API server is ready, and otherwise when nothing has started for a while;
    where it must not be, its back-off is waited for. A process that is older than its kubelet has
    none, for that one has never started it. A manifest that is taken out is put in
    instead. Fails when nothing runs after START_SECONDS, or the longest back-off.
    """
    limit = START_SECONDS if restarts_kubelet else BACK_OFF_SECONDS
    fresh = f"""
if [ $changed = {UNCHANGED} ] && api_ready "$(kubelet_api)"; then
  older_than_kubelet $old || {{
    systemctl restart kubelet
    waited {KUBELET_SECONDS} kubelet_runs
  }}
  if [ "$(kubelet_age)" -lt {2 * CALM_SECONDS} ] || ! kubelet_met; then
    waited {MEET_SECONDS} kubelet_met || :
    sleep {CALM_SECONDS}
  fi
fi"""
    rescue = f"""
waited {PATIENCE_SECONDS} again || api_ready "$(kubelet_api)" || systemctl restart kubelet"""
    script = f"""
{PODS}{SEEN_API.strip()}
{_WAIT.strip()}
old=$(own_processes {pod.container} | xargs)
{_put_in(pod)}{fresh * restarts_kubelet}
[ $changed = {CHANGED} ] || [ -z "$old" ] || kill -KILL $old
again() {{ local new; new=$(own_processes {pod.container} | xargs)
  [ -n "$new" ] && [ "$new" != "$old" ]; }}{rescue * restarts_kubelet}
waited {limit} again || {{
  echo "the kubelet has not started {pod.container} again within {limit} s" >&2; exit 1; }}
echo {CHANGED}
"""
    return Command(f"restart {pod.container}", script.strip())


def _put_in(pod: PodFile) -> str:
    """Rename a kept manifest into its directory; a kubelet that was stopped for it is started."""
    manifest, kept = quote(str(pod.manifest)), quote(str(pod.kept))
    return f"""
{_FORGET}
changed={UNCHANGED}
if [ ! -e {manifest} ]; then
  [ ! -e {kept} ] || ! forget {pod.container} || sleep {SETTLE_SECONDS}
  [ -e {kept} ] || {{ echo "there is neither {pod.manifest} nor {pod.kept}" >&2; exit 1; }}
  mv -T {kept} {manifest}
  sync {quote(str(pod.kept.parent))} {quote(str(pod.manifest.parent))}
  changed={CHANGED}
fi
systemctl is-active --quiet kubelet || systemctl start kubelet""".strip()
