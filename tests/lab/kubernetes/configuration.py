"""What kubeadm is told: the smallest that makes a whole cluster on the lab's nodes.

The token and the key are no secrets: they open clusters that live for minutes on a bridge of their
own.
"""

from __future__ import annotations

TOKEN = "abcdef.0123456789abcdef"
CERTIFICATE_KEY = "0123456789abcdef" * 4

NODE = """\
nodeRegistration:
  name: {name}
  criSocket: unix:///run/containerd/containerd.sock
  imagePullPolicy: Never
  kubeletExtraArgs:
  - {{name: node-ip, value: {address}}}
"""

INIT = """\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
- token: {token}
certificateKey: {key}
localAPIEndpoint: {{advertiseAddress: {address}, bindPort: 6443}}
{node}---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v{version}
controlPlaneEndpoint: {address}:6443
networking: {{serviceSubnet: 10.96.0.0/12, podSubnet: 10.244.0.0/16}}
{options}---
{kubelet}"""

KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
# The machine has cgroup v1, which is refused by default since 1.35.
failCgroupV1: false
failSwapOn: false
enableControllerAttachDetach: false
makeIPTablesUtilChains: false
evictionHard:
  memory.available: 1Mi
  nodefs.available: 0%
  nodefs.inodesFree: 0%
  imagefs.available: 0%
  imagefs.inodesFree: 0%
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
resolvConf: /etc/resolv.conf
"""

JOIN = """\
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    apiServerEndpoint: {through}:6443
    token: {token}
    unsafeSkipCAVerification: true
{node}controlPlane:
  certificateKey: {key}
  localAPIEndpoint: {{advertiseAddress: {address}, bindPort: 6443}}
"""


def init_configuration(version: str, name: str, address: str, options: str = "") -> str:
    """Render what `kubeadm init` reads on the first node, which is the control plane's endpoint.

    `options` are further lines of the ClusterConfiguration.
    """
    return INIT.format(
        version=version,
        address=address,
        token=TOKEN,
        key=CERTIFICATE_KEY,
        node=NODE.format(name=name, address=address),
        kubelet=KUBELET,
        options=options,
    )


def join_configuration(name: str, address: str, through: str) -> str:
    """Render what `kubeadm join` reads on a further control plane."""
    return JOIN.format(
        through=through,
        address=address,
        token=TOKEN,
        key=CERTIFICATE_KEY,
        node=NODE.format(name=name, address=address),
    )
