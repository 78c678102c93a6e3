"""What an etcd serves, and whether members let each other in, asked from the hosts themselves.

Verification is off where a certificate is only read; nothing is ever sent on such a connection.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts.batch import Command, Result
from tasks.model.fields import is_ip_address
from tasks.model.urls import address_port

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)
SECONDS = 3
CARRY_SECONDS = 5
# s_client does not end when the other side does, so it is ended once it has shown the answer.
VERSION_REQUEST = r"GET /version HTTP/1.0\r\nHost: etcd\r\n\r\n"
ASK = f"""
ask() {{
  coproc answer {{ exec timeout {SECONDS} openssl s_client -quiet -connect "$@" 2>&1; }}
  pid=$answer_PID; exec 3<&"${{answer[0]}}"
  printf "$request" >&"${{answer[1]}}" || :
  said=""
  while read -r -t {SECONDS} line <&3 || [ -n "$line" ]; do
    said="$said ${{line%$'\\r'}}"
    case $line in $until) break ;; esac
    line=""
  done
  said=${{said:-no answer in {SECONDS} s}}
  kill "$pid" 2>/dev/null || :
}}""".strip()


OWN = """
own() {
  at=$(ss -ltn "sport = :$1" | awk 'NR > 1 { print $4; exit }')
  case $at in
    '' | '*:'* | 0.0.0.0:*) echo "127.0.0.1:$1" ;;
    :::* | '[::]:'*) echo "[::1]:$1" ;;
    *) echo "$at" ;;
  esac
}""".strip()
"""Where a host listens on a port. It may know its own name as 127.0.1.1, as Debian has it."""


def own_place(address: str, port: int) -> tuple[str, str]:
    """Say where a member is on its own host: what defines it, and the word, for a shell."""
    if is_ip_address(address):
        return "", quote(address_port(address, port))
    return f"{OWN}\n", f'"$(own {port})"'


def served_command(address: str, port: int) -> Command:
    """Tell the certificates that a port of this host presents; also when it then refuses us."""
    own, where = own_place(address, port)
    script = (
        f"{own}timeout {SECONDS} openssl s_client -connect {where} -showcerts </dev/null 2>&1 || :"
    )
    return Command(f"read what {address} port {port} serves", script)


def parse_served(result: Result) -> str | None:
    """Read the chain that was presented, PEM, the leaf first; None when nothing was."""
    return "".join(CERTIFICATE.findall(result.stdout)) or None


def peers_command(
    certificate: PurePosixPath,
    key: PurePosixPath,
    trusted: PurePosixPath,
    peers: tuple[tuple[str, str, int], ...],
) -> Command:
    """Ask each (name, address, port) for /version with this host's own peer pair, all at once.

    Both sides verify: the other's certificate must name its address and come from an authority
    that this host's file trusts, and the other must let this host in.
    """
    name = "reach the others with the own peer pair"
    return ask_command(name, certificate, key, trusted, peers, VERSION_REQUEST, "HTTP/*")


def ask_command(
    command_name: str,
    certificate: PurePosixPath,
    key: PurePosixPath,
    trusted: PurePosixPath,
    peers: tuple[tuple[str, str, int], ...],
    request: str,
    until: str,
    *,
    is_own: bool = False,
) -> Command:
    """Send a request, as printf writes it, to each (name, address, port) with a pair of the host's.

    `is_own`: they are this host's own, and are asked where it listens, whatever its names say.
    Prints a line a peer: its name and what it said, up to the line that the pattern matches.
    """
    pair = f"-cert {quote(str(certificate))} -key {quote(str(key))} -CAfile {quote(str(trusted))}"
    asks = []
    for name, address, port in peers:
        kind = "-verify_ip" if is_ip_address(address) else "-verify_hostname"
        where = own_place(address, port)[1] if is_own else quote(address_port(address, port))
        verify = f"-verify_return_error {kind} {quote(address)}"
        asks.append(f'( ask {where} {pair} {verify}; echo "{name} $said" ) &')
    words = f"request={quote(request)} until={quote(until)}"
    return Command(command_name, "\n".join([words, OWN, ASK, *asks, "wait"]))


def parse_peers(result: Result) -> dict[str, str | None]:
    """Read who was reached: name -> None when it let this host in, else what was said."""
    found: dict[str, str | None] = {}
    for line in result.stdout.splitlines():
        name, _, said = line.partition(" ")
        if name:
            found[name] = None if " 200 OK" in said else said.strip()
    return found


def carry_command(
    certificate: PurePosixPath,
    key: PurePosixPath,
    trusted: PurePosixPath,
    address: str,
    port: int,
    request: str,
    *,
    is_own: bool = False,
) -> Command:
    """Send one whole HTTP/1.0 request with a pair of the host's; the other side closes after it.

    Both sides verify. What comes back is standard output, what openssl objects to the other one.
    `is_own`: the member is this host's own.
    """
    kind = "-verify_ip" if is_ip_address(address) else "-verify_hostname"
    where = address_port(address, port)
    own, at = own_place(address, port) if is_own else ("", quote(where))
    script = (
        f"{own}timeout {CARRY_SECONDS} openssl s_client -quiet -connect {at} "
        f"-cert {quote(str(certificate))} -key {quote(str(key))} -CAfile {quote(str(trusted))} "
        f"-verify_return_error {kind} {quote(address)}"
    )
    return Command(f"ask {where} {request.split()[1]} with the own pair", script, request)
