"""Leaf certificates on a host: the key is made there and never read; only its public half is.

The key and the request are staged beside the live files as *.new; installing checks that the
pair matches, keeps the old pair aside and renames both.
"""

from __future__ import annotations

from shlex import join, quote
from typing import TYPE_CHECKING

from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, keep_aside, relabel

SWAPPING = ".swap."
"""Begins the name of a directory that a pair stands in for the moment of its exchange."""

RENAMES = f"""
if [ "${{key%/*}}" = "${{certificate%/*}}" ]; then
  # Starting a second mv takes milliseconds, which is many handshakes.
  ready=$(mktemp --directory --tmpdir="${{key%/*}}" {SWAPPING}XXXXXXXX)
  mv -fT "$key.new" "$ready/${{key##*/}}"
  mv -fT "$certificate.new" "$ready/${{certificate##*/}}"
  mv -f --target-directory="${{key%/*}}" "$ready/${{key##*/}}" "$ready/${{certificate##*/}}"
  rmdir "$ready"
else
  mv -fT "$key.new" "$key"; mv -fT "$certificate.new" "$certificate"
fi
""".strip()

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import PurePosixPath


def key_public_command(key: PurePosixPath) -> Command:
    """Tell the public half of a private key, PEM; nothing when there is no usable key."""
    script = f"openssl pkey -in {quote(str(key))} -passin pass: -pubout 2>/dev/null || :"
    return Command(f"public half of {key}", script)


def parse_key_public(result: Result) -> str | None:
    """Read the answer of `key_public_command`."""
    return result.stdout.strip() + "\n" if "BEGIN PUBLIC KEY" in result.stdout else None


def request_leaf_command(
    key: PurePosixPath, key_command: tuple[str, ...], request_config: str
) -> Command:
    """Make a new key beside `key` and print a signing request for it.

    `key_command` is openssl's argv without its output, `request_config` its request file.
    """
    staged = quote(f"{key}.new")
    script = (
        f"[ -d {quote(str(key.parent))} ] || {{ echo 'there is no {key.parent}' >&2; exit 1; }}\n"
        f"rm -f {staged}; rm -rf {quote(str(key.parent))}/{SWAPPING}????????\n"
        # openssl says on a full disk that all went well.
        f"{{ said=$({join(key_command)} -out {staged} 2>&1) && [ -s {staged} ]; }} || {{\n"
        '  echo "${said##*.}" >&2\n'
        f'  echo "no key could be written in {key.parent}: is its disk full?" >&2; exit 1; }}\n'
        f"openssl req -new -key {staged} -config /dev/stdin"
    )
    return Command(f"make key and request for {key}", script, request_config)


def discard_staged_command(pairs: Iterable[tuple[PurePosixPath, PurePosixPath]]) -> Command:
    """Take away what is staged beside pairs (certificate, key) and was not swapped."""
    found = tuple(pairs)
    staged = [f"{path}.new" for pair in found for path in pair]
    moving = [f"{quote(str(key.parent))}/{SWAPPING}????????" for _, key in found]
    return Command("take staged pairs away", f"rm -f {join(staged)}; rm -rf {' '.join(moving)}")


def parse_request(result: Result) -> bytes:
    """Read the signing request, PEM."""
    return result.stdout.strip().encode() + b"\n"


def stage_leaf_command(
    certificate: PurePosixPath,
    key: PurePosixPath,
    certificate_pem: str,
    *,
    owner: str,
    group: str,
    certificate_mode: str = "0644",
    key_mode: str = "0600",
) -> Command:
    """Put a signed certificate beside the live one, as its staged key already is.

    Both have their mode and owner and are on the disk when it ends; it fails when they do not
    match. The live pair is not touched.
    """
    new_certificate, new_key = quote(f"{certificate}.new"), quote(f"{key}.new")
    script = f"""
rm -f {new_certificate}
cat > {new_certificate}
certified=$(openssl x509 -in {new_certificate} -noout -pubkey)
[ "$certified" = "$(openssl pkey -in {new_key} -pubout)" ] || {{
  echo "the staged key and the signed certificate do not match" >&2; exit 1; }}
chown {quote(owner)}:{quote(group)} {new_certificate} {new_key}
chmod {certificate_mode} {new_certificate}
chmod {key_mode} {new_key}
sync {new_certificate} {new_key}
echo {CHANGED}
"""
    return Command(f"stage {certificate} and its key", script.strip(), certificate_pem)


def swap_leaf_command(
    certificate: PurePosixPath, key: PurePosixPath, *, backup: PurePosixPath
) -> Command:
    """Put the staged pair in place of the live one, whose copies are kept aside.

    The two renames follow each other at once, in one process where the files lie together: etcd
    reads both at each handshake, and a handshake between them fails. On failure before them the
    live pair is as it was. The staged pair is looked at again first: what lies there may be another
    run's. Where a name is a link, the file that it leads to is replaced, and the link stays.
    """
    new_certificate, new_key = quote(f"{certificate}.new"), quote(f"{key}.new")
    script = f"""
certified=$(openssl x509 -in {new_certificate} -noout -pubkey)
[ "$certified" = "$(openssl pkey -in {new_key} -pubout)" ] || {{
  echo "the staged key and the signed certificate do not match" >&2; exit 1; }}
{keep_aside(certificate, backup)}
{keep_aside(key, backup)}
beside() {{  # what is renamed must lie on the file system of what it replaces
  [ "$1" -ef "$2.new" ] || mv -fT "$1" "$2.new"
  sync "$2.new"
}}
key=$(readlink -m {quote(str(key))}); certificate=$(readlink -m {quote(str(certificate))})
beside {new_key} "$key"
beside {new_certificate} "$certificate"
{RENAMES}
{relabel("certificate", "key")}
sync "${{certificate%/*}}/" "${{key%/*}}/"
echo {CHANGED}
"""
    return Command(f"swap {certificate} and its key", script.strip())
