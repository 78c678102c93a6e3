"""What is done on a machine that lists the members: reloading, waiting, telling a hook."""

from __future__ import annotations

from shlex import quote

from tasks.hosts.batch import Command
from tasks.hosts.files import CHANGED, UNCHANGED

TOLD = "/var/lib/etcd-runbooks/endpoints"
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
