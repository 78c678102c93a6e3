"""Seeing who else uses a member's files, and which certificates of its authorities are about."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.engine.authority import known_authorities
from tasks.engine.run import Run, step, together
from tasks.hosts.connection import HostConnection
from tasks.hosts.sharing import parse_sharing, sharing_command
from tasks.hosts.supervisors import supervisor
from tasks.model.sharing import Sharing, StrayCertificate
from tasks.pki.inspect import find_issuer, read_certificate


@step("see who else uses the files on {host}")
async def see_sharing(
    run: Run, host: HostConnection, trusted: tuple[bytes, ...] | None = None
) -> Sharing:
    """See it; nothing is changed. Certificates of other authorities are left out.

    The authorities are the runner's, or `trusted`, PEM, where it has none yet.
    """
    layout = run.inventory.layout(host.name)
    (result,) = await host.run(sharing_command(supervisor(layout), layout.credentials))
    found = parse_sharing(result)
    known = known_authorities(run).values() if trusted is None else trusted
    authorities = {read_certificate(pem).fingerprint: pem for pem in known}
    strays = {
        (path, user): StrayCertificate(path, issuer, user)
        for path, pem, user in found.certificates
        if (issuer := find_issuer(pem, authorities)) is not None
        and not read_certificate(pem).is_authority
    }
    publics = {read_certificate(pem).public_key_pem: name for name, pem in authorities.items()}
    keys = {path: publics.get(public.strip().encode() + b"\n") for path, public in found.keys}
    # Where the kubelet runs etcd, its API server is made to use the same files.
    expected = {"kube-apiserver"} if layout.manifest else set()
    return Sharing(
        host.name,
        tuple(user for user in found.users if user.process not in expected),
        found.linked,
        tuple(strays.values()),
        tuple((path, name) for path, name in keys.items() if name is not None),
    )


async def see_all(
    run: Run, names: Iterable[str], trusted: tuple[bytes, ...] | None = None
) -> tuple[Sharing, ...]:
    """See those hosts at once that are named; `trusted` as for one host."""
    wanted = set(names)
    return await together(
        see_sharing(run, host, trusted) for name, host in run.hosts.items() if name in wanted
    )
