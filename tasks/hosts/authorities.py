"""A cluster's authority where it lies on the hosts, as kubeadm leaves it: certificate and key.

What members trust and the authority's certificate are one file there (ca.crt), in which the one
that signs stands first, because kubeadm signs with the first of a bundle. While one authority
follows another, the other's certificate and key lie beside it (ca.next.crt, ca.previous.key).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from shlex import quote

from tasks.hosts import files, leaves
from tasks.hosts.batch import Command, Result
from tasks.hosts.files import CHANGED, keep_aside
from tasks.model.certificates import Generation
from tasks.model.layout import Pair, generation_files


def see_authority_commands(pair: Pair) -> tuple[Command, ...]:
    """Tell the certificates of each generation, and the public half of its key."""
    return tuple(_see(pair))


def _see(pair: Pair) -> Iterator[Command]:
    for generation in Generation:
        certificate, key = generation_files(pair, generation)
        yield files.read_file_command(certificate)
        yield leaves.key_public_command(key)


def parse_authority(results: tuple[Result, ...]) -> dict[Generation, tuple[str, str]]:
    """Read the answers: PEM text and public key of each generation that has both."""
    found: dict[Generation, tuple[str, str]] = {}
    pairs = zip(results[::2], results[1::2], strict=True)
    for generation, (certificate, key) in zip(Generation, pairs, strict=True):
        file, public = files.parse_file(certificate), leaves.parse_key_public(key)
        if file is not None and file.text and public is not None:
            found[generation] = file.text, public
    return found


def read_key_command(pair: Pair, generation: Generation) -> Command:
    """Read an authority's key, to sign in memory."""
    _, key = generation_files(pair, generation)
    return Command("read the authority's key, to sign in memory", f"cat {quote(str(key))}")


def write_successor_commands(
    pair: Pair, certificate: str, key: str, backup: PurePosixPath
) -> tuple[Command, ...]:
    """Put the next authority beside the one that signs; the key first, the certificate last."""
    paths = generation_files(pair, Generation.NEXT)

    def write(path: PurePosixPath, content: str, mode: str) -> Command:
        return files.write_file_command(
            path, content, mode=mode, owner="root", group="root", backup=backup
        )

    return write(paths[1], key, "0600"), write(paths[0], certificate, "0644")


def exchange_command(
    pair: Pair, incoming: Generation, outgoing: Generation, outgoing_pem: str, bundle: str
) -> Command:
    """Let the authority `incoming` sign on a host, and keep the other as `outgoing`.

    Copies first, then the bundle in which the one that signs stands first, then its key: what ends
    in between leaves the old key, whose certificate is in the bundle and beside it.
    """
    kept, taken = generation_files(pair, outgoing), generation_files(pair, incoming)
    certificate, key = map(quote, map(str, (pair.certificate, pair.key)))
    script = f"""
new=$(mktemp {quote(str(pair.certificate.with_name(f".{pair.certificate.name}")))}.XXXXXXXX)
trap 'rm -f "$new"' EXIT
head -c {len(outgoing_pem.encode())} > "$new"
chmod --reference={certificate} "$new"
sync "$new"
mv -fT "$new" {quote(str(kept[0]))}
cp -aT {key} {quote(str(kept[1]))}
cat > "$new"
chmod --reference={certificate} "$new"
chown --reference={certificate} "$new"
sync "$new" {quote(str(kept[1]))}
mv -fT "$new" {certificate}
mv -fT {quote(str(taken[1]))} {key}
rm -f {quote(str(taken[0]))}
sync {quote(str(pair.key.parent))}
echo {CHANGED}
"""
    name = f"let {pair.key.name} be the {incoming} authority's"
    return Command(name, script.strip(), outgoing_pem + bundle)


def retire_command(pair: Pair, generation: Generation, backup: PurePosixPath) -> Command:
    """Move an authority's files out of the directory; they are kept under `backup`."""
    paths = generation_files(pair, generation)
    moves = "\n".join(
        f"if [ -e {quote(str(path))} ]; then\n{keep_aside(path, backup)}\n"
        f"rm -f {quote(str(path))}; changed={CHANGED}; fi"
        for path in paths
    )
    return Command(
        "keep the old authority aside", f"changed={files.UNCHANGED}\n{moves}\necho $changed"
    )
