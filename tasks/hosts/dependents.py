"""What is done on a machine that lists the members: reloading, waiting, telling a hook."""

from __future__ import annotations

from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, UNCHANGED
from tasks.model.layout import NOTES
from tasks.model.snapshots import EncryptionFile

TOLD = str(NOTES / "endpoints")
LIVEZ_SECONDS = 150
"""The kubelet looks at its directory every 20 s at the latest, and ends the old pod first."""


def wait_for_apiserver_command(servers: str, livez: str) -> Command:
    """Wait until a kube-apiserver runs with these --etcd-servers and is live.

    The process is looked for in /proc, since an old one may still answer.
    """
    script = f"""
wanted={quote(f"--etcd-servers={servers}")}
until=$((SECONDS + {LIVEZ_SECONDS}))
while [ $SECONDS -lt $until ]; do
  for line in /proc/[0-9]*/cmdline; do
    if tr '\\0' '\\n' < "$line" 2>/dev/null | grep -Fxq -e "$wanted"; then
      curl --fail --silent --show-error --insecure --max-time 5 {quote(livez)} >/dev/null && exit 0
    fi
  done
  sleep 1
done
echo "no kube-apiserver with $wanted is live at {livez} after {LIVEZ_SECONDS} s" >&2
exit 1
"""
    return Command("wait for the kube-apiserver", script.strip())


def encryption_command() -> Command:
    """Tell with what the API servers here encrypt: the file's path, and its SHA-256 alone.

    Asked of the process, and read where the process sees it: it may be in a container.
    """
    script = r"""
for pid in $(pgrep -x kube-apiserver); do
  path=$(tr '\0' '\n' < "/proc/$pid/cmdline" 2>/dev/null |
    sed -n -e 's/^--encryption-provider-config=//p' -e '/^--encryption-provider-config$/{n;p;}' |
    tail -n 1)
  [ -n "$path" ] || continue
  sum=$(sha256sum < "/proc/$pid/root$path") || exit 1
  echo "${sum%% *} $path"
done
"""
    return Command("the API server's encryption configuration", script.strip())


def parse_encryption(host: str, result: Result) -> tuple[EncryptionFile, ...]:
    """Read the answer of `encryption_command`; none where nothing is encrypted."""
    pairs = (line.partition(" ") for line in result.stdout.splitlines())
    return tuple(EncryptionFile(host=host, path=path, sha256=sha) for sha, _, path in pairs)


def check_haproxy() -> str:
    """Write the shell that lets HAProxy check "$new"."""
    return 'haproxy -c -q -f "$new" || { echo "haproxy -c refused the file" >&2; exit 1; }'


def reload_command(unit: str) -> Command:
    """Let a unit read its files again without dropping connections."""
    return Command(f"reload {unit}", f"systemctl reload {quote(unit)}")


def told_command(name: str) -> Command:
    """Tell which endpoints a hook was last told."""
    return Command(f"what {name} was told", f"cat {quote(f'{TOLD}/{name}')} 2>/dev/null || :")


def hook_command(name: str, hook: str, endpoints: str) -> Command:
    """Run the operator's hook with ETCD_ENDPOINTS, and note that it was told."""
    note = quote(f"{TOLD}/{name}")
    script = (
        f'[ "$(cat {note} 2>/dev/null)" = {quote(endpoints)} ] && {{ echo {UNCHANGED}; exit 0; }}\n'
        f"( export ETCD_ENDPOINTS={quote(endpoints)}\n{hook}\n) >&2 || exit\n"
        f"mkdir -p {quote(TOLD)}\nprintf %s {quote(endpoints)} > {note}\necho {CHANGED}"
    )
    return Command(f"hook of {name}", script)
