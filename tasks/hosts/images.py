"""Images of a node's static pods: what kubeadm was told of them, whether one is there, fetched."""

from __future__ import annotations

import json
import re
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, UNCHANGED
from tasks.hosts.pods import SEEN_API
from tasks.model.errors import Refused, Transient
from tasks.model.kubeadm import CONFIGMAP, Installed

PULL_SECONDS = 300
_LOGGED = re.compile(r'msg="(.*)"$')
"""How crictl writes what it has to say."""
_TIMED_OUT = 124
"""How `timeout` ends."""

# Kubeadm lets its nodes read it, for its own upgrades.
ASK = r"""
api=$(kubelet_api); pair=/var/lib/kubelet/pki/kubelet-client-current.pem
curl --silent --max-time 10 --cacert /etc/kubernetes/pki/ca.crt --cert "$pair" --key "$pair" \
  --write-out '\n%{http_code}' "$api/api/v1/namespaces/kube-system/configmaps/kubeadm-config" || :
"""

_ROLE = "kubeadm:nodes-kubeadm-config"
_LET = (
    f"`kubectl -n kube-system create role {_ROLE} --verb=get --resource=configmaps "
    "--resource-name=kubeadm-config` and `kubectl -n kube-system create rolebinding "
    f"{_ROLE} --role={_ROLE} --group=system:nodes`"
)
_FORBIDDEN = "403"


def configuration_command() -> Command:
    """Ask the node's API server, as the node, what kubeadm keeps of the cluster."""
    return Command("what kubeadm was told", f"{SEEN_API.strip()}{ASK.rstrip()}")


def parse_configuration(result: Result) -> str | None:
    """Read kubeadm's ClusterConfiguration; None where the cluster has none.

    Raises Transient where the API server did not tell, and Refused where nodes may not be told.
    """
    text, _, status = result.stdout.strip().rpartition("\n")
    if status == "404":
        return None
    if status == _FORBIDDEN:
        raise Refused(
            f"the API server does not let nodes read the {CONFIGMAP}: whether there is one, and "
            f"kubeadm owns etcd's version, is not known. Let them, as kubeadm does: {_LET}"
        )
    try:
        found = json.loads(text)["data"]["ClusterConfiguration"]
    except (ValueError, KeyError, TypeError) as error:
        said = f"its API server does not tell what kubeadm was told (HTTP {status or '-'})"
        raise Transient(said) from error
    return str(found)


def installed_command() -> Command:
    """Tell the release of the node's kubeadm, and the etcd that it brings."""
    script = """
release=$(kubeadm version --output short 2>/dev/null) || exit 0
echo "$release"
timeout 10 kubeadm config images list --kubernetes-version "$release" 2>/dev/null |
  grep /etcd: || :
"""
    return Command("which etcd kubeadm brings", script.strip())


def parse_installed(result: Result) -> Installed:
    """Read the answer of `installed_command`."""
    release, image, *_ = (*result.stdout.split(), "", "")
    return Installed(release.removeprefix("v"), image)


def fetch_command(image: str) -> Command:
    """See that the runtime has an image, pulled if need be; prints CHANGED or UNCHANGED.

    Where it cannot be had, what the runtime says of it is its standard error.
    """
    name = quote(image)
    script = f"""
if timeout 10 crictl inspecti {name} > /dev/null 2>&1; then echo {UNCHANGED}; exit 0; fi
timeout {PULL_SECONDS} crictl pull {name} >&2
echo {CHANGED}
"""
    return Command(f"pull {image}", script.strip())


def failed_sentence(image: str, status: int, said: str) -> str:
    """Say why an image is not there, from how `fetch_command` ended, and the ways to it."""
    *_, last = ("", *said.strip().splitlines())
    logged = _LOGGED.search(last)
    last = logged[1].replace(r"\"", '"') if logged else last
    why = f"not within {PULL_SECONDS} s" if status == _TIMED_OUT else last or f"status {status}"
    return (
        f"{image} cannot be had there: {why}\nno member has been touched. Let the node reach its "
        f"registry (`crictl pull {image}` there tells), or import the image (`ctr --namespace "
        "k8s.io images import FILE`); then run it again"
    )
