"""No secret is anywhere but where it belongs: markers, a run, and a scan of all that it left.

A bootstrap and a rotation of the authority run at Prefect's most talkative while argument lists
and the modes of key files are watched. Then the passphrase, the authority's key and every host's
keys are looked for, also encoded and packed, in PREFECT_HOME, the database, what was said, and the
hosts' whole disks. A scanner that finds nothing proves nothing, so it is shown first to find what
is planted.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import pickle
import re
import secrets
import sqlite3
import stat
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.integration.homes import prepare_home
from tests.integration.rbac import enable_rbac, name_user, write_password
from tests.integration.rotations import authority_digits
from tests.integration.runbooks import Ended, Prefect, finish, run_runbook, start_runbook
from tests.lab.etcd_programs import INSTALLED
from tests.lab.watching import Watching

if TYPE_CHECKING:
    from tests.lab.fixtures import StartLab
    from tests.lab.host import Host
    from tests.lab.lab import Lab

pytest_plugins = ["tests.lab.fixtures"]
pytestmark = [pytest.mark.lab, pytest.mark.one_etcd, pytest.mark.timeout(900)]

ENCODED = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
DECODED_UP_TO_BYTES = 8 << 20
"""Larger files (etcd's programs, its preallocated log) are searched as they are only."""
PLAIN_KEY = re.compile(rb"-----BEGIN (RSA |EC |DSA |OPENSSH )?PRIVATE KEY-----")
PASSWORD = "password of etcd's user"
VOLATILE = ("run", "tmp", "dev/shm", "var/tmp")
TALKATIVE = """active = "talkative"
[profiles.talkative]
PREFECT_LOGGING_LEVEL = "DEBUG"
PREFECT_LOGGING_EXTRA_LOGGERS = "asyncssh,asyncio"
"""


# The scanner


@dataclass(frozen=True, slots=True)
class Scanner:
    """Looks for secrets by name; each has several spellings, any of which gives it away."""

    spellings: dict[str, tuple[bytes, ...]]

    def search(self, data: bytes, depth: int = 3) -> set[str]:
        """Name the secrets in some bytes: as they are, base64 in base64, pickled, compressed."""
        found = {
            name
            for name, spellings in self.spellings.items()
            if any(spelling in data for spelling in spellings)
        }
        if depth and len(data) <= DECODED_UP_TO_BYTES:
            for inner in _unpacked(data):
                found |= self.search(inner, depth - 1)
        return found

    def search_tree(self, top: Path) -> set[tuple[str, str]]:
        """List (secret, file) of all regular files below a directory, and of their names."""
        found = set()
        for path in _files(top):
            with contextlib.suppress(FileNotFoundError):
                names = self.search(path.read_bytes()) | self.search(os.fsencode(path), depth=0)
                found |= {(name, str(path)) for name in names}
        return found

    def search_database(self, path: Path) -> set[tuple[str, str]]:
        """List (secret, table.column) of a SQLite database, whose pages split long values."""
        return {
            (name, where) for where, value in _cells(path) for name in self.search(value, depth=2)
        }


def _unpacked(data: bytes) -> Iterator[bytes]:
    if data[:1] in {b"\x78", b"\x1f"}:
        with contextlib.suppress(zlib.error):
            # zlib's and gzip's headers; what is cut off at the end is unpacked as far as it goes.
            yield zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data)
    for match in set(ENCODED.findall(data)):
        text = match.replace(b"-", b"+").replace(b"_", b"/")
        # What stands before it may have been taken for a part of it: the n of an escaped newline.
        for start in range(4):
            part = text[start:]
            part = part[:-1] if len(part) % 4 == 1 else part
            yield base64.b64decode(part + b"=" * (-len(part) % 4))


def _files(top: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory) / name
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path


def _cells(path: Path) -> Iterator[tuple[str, bytes]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master")
                  if row[0] and not row[0].startswith("sqlite_")]  # fmt: skip
        for table in tables:
            with contextlib.suppress(sqlite3.OperationalError):  # an index is no table
                rows = database.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - its own names
                columns = [column[0] for column in rows.description]
                for row in rows:
                    for column, value in zip(columns, row, strict=True):
                        if isinstance(value, str | bytes):
                            content = value.encode() if isinstance(value, str) else value
                            yield f"{table}.{column}", content


def spell_text(text: str) -> tuple[bytes, ...]:
    """List how a passphrase may be written."""
    raw = text.encode()
    return raw, raw.hex().encode(), text.encode("utf-16-le"), base64.b64encode(raw).rstrip(b"=")


def spell_key(pem: bytes, passphrase: bytes | None = None) -> tuple[bytes, ...]:
    """List how a private key may be written: lines of its PEM forms, and its secret number."""
    key = serialization.load_pem_private_key(pem, passphrase)
    spellings = []
    forms = [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
    for form in forms:
        plain = key.private_bytes(
            serialization.Encoding.PEM, form, serialization.NoEncryption()
        ).splitlines()[1:-1]
        spellings.append(plain[len(plain) // 2])
    if isinstance(key, rsa.RSAPrivateKey):
        number = key.private_numbers().d
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        number = key.private_numbers().private_value
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return (*spellings, raw, raw.hex().encode(), str(number).encode())


# The watch


YOUNG_LOOKS = 25
"""A process that is seen for the first time may become another program; later it seldom does."""


@dataclass(slots=True)
class Watch:
    """What could be seen of processes and key files at any time of the block."""

    directories: tuple[Path, ...] = ()
    arguments: set[bytes] = field(default_factory=set)
    readable: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    looks: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        """Look once at young processes' arguments, and at the mode of each file that is a key."""
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - often, and fast
            self.looks[name] += 1
            if self.looks[name] < YOUNG_LOOKS or self.looks[name] % YOUNG_LOOKS == 0:
                with contextlib.suppress(OSError):
                    self.arguments.add(Path("/proc", name, "cmdline").read_bytes())
        for directory in self.directories:
            for path in directory.glob("*key*"):
                with contextlib.suppress(OSError):
                    self.keys.add(path.name)
                    if path.stat().st_mode & 0o077:
                        self.readable.add(f"{path} {path.stat().st_mode:o}")

    def watching(self) -> Watching:
        """Look every few milliseconds for as long as the block."""
        return Watching(0.004, self.look)


# The run


@dataclass(frozen=True, slots=True)
class Scene:
    """What a bootstrap left, and the scanner for its secrets."""

    lab: Lab
    prefect: Prefect
    temporary: Path
    watch: Watch
    said: tuple[Ended, ...]
    scanner: Scanner

    @property
    def database(self) -> Path:
        """Prefect's own, of the embedded API."""
        return self.prefect.home / "prefect.db"


@pytest.fixture(scope="module")
def scene(start_module_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Bootstrap with marked secrets and the embedded API; with RBAC on, rotate and replace."""
    lab = start_module_lab(hosts=3, etcd=INSTALLED, etcd_source="installed")
    home, temporary = tmp_path_factory.mktemp("prefect"), tmp_path_factory.mktemp("temporary")
    prefect = Prefect(prepare_home(home))
    (home / "profiles.toml").write_text(TALKATIVE)
    phrase = f"phrase-{secrets.token_hex(16)}"
    passphrase = f"marker-{secrets.token_hex(16)}"
    wrong = f"wrong-{secrets.token_hex(16)}"
    password, kept = f"marked-{secrets.token_hex(16)}", tmp_path_factory.mktemp("kept")
    file = lab.authority / "passphrase"
    file.write_text(f"{passphrase}\n")
    watch = Watch((lab.authority, *(h.root / "etc/etcd/ssl" for h in lab.hosts.values())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setenv("SSH_PHRASE", lock_key(lab, kept, phrase))
        with watch.watching():
            done = run_runbook(prefect, "bootstrap_cluster", lab, "--reason", "marked")
            assert done.status == 0, done.output
            enable_rbac(lab, root=f"root-{secrets.token_hex(16)}", user=password)
            name_user(lab.inventory, write_password(kept / "etcd-password", password))
            healthy = run_runbook(prefect, "check_health", lab)
            replace = ("--replace", authority_digits(lab.inventory))
            rotated = run_runbook(prefect, "rotate_authority", lab, *replace)
            checked = check_certificates(prefect, lab)
            lab["master03"].run("systemctl stop etcd; rm -rf /etc/etcd/ssl /var/lib/etcd/*").check()
            replaced = run_runbook(prefect, "replace_member", lab, "--member", "master03")
            file.write_text(f"{wrong}\n")
            refused = run_runbook(prefect, "bootstrap_cluster", lab)
    assert healthy.status == 0, healthy.output
    assert rotated.status == 0, rotated.output
    assert checked.status == 0, checked.output
    assert replaced.status == 0, replaced.output
    assert refused.status == 2, refused.output
    spellings = {
        "passphrase": spell_text(passphrase),
        "wrong passphrase": spell_text(wrong),
        PASSWORD: spell_text(password),
        "the SSH key's passphrase": spell_text(phrase),
        "authority's key": spell_key(
            (lab.authority / "ca-key.pem").read_bytes(), passphrase.encode()
        ),
    }
    for host in lab.hosts.values():
        for name in key_files(host):
            pem = host.run(["cat", f"/etc/etcd/ssl/{name}"]).check().stdout
            spellings[f"{host.name}'s {name}"] = spell_key(pem.encode())
    said = (done, healthy, rotated, checked, replaced, refused)
    return Scene(lab, prefect, temporary, watch, said, Scanner(spellings))


def lock_key(lab: Lab, directory: Path, phrase: str) -> str:
    """Let the inventory name a copy of the operator's key that has a passphrase; returns that."""
    key = directory / "id_ed25519"
    key.touch(mode=0o600)
    key.write_bytes(lab.key.read_bytes())
    keygen = ["ssh-keygen", "-q", "-p", "-P", "", "-N", phrase, "-f", str(key)]
    subprocess.run(keygen, check=True, timeout=30)
    text = lab.inventory.read_text()
    named = f"  key: {json.dumps(str(key))}\n  key_passphrase: {{env: SSH_PHRASE}}\n"
    changed = text.replace(f"  key: {json.dumps(str(lab.key))}\n", named)
    assert changed != text
    lab.inventory.write_text(changed)
    return phrase


def check_certificates(prefect: Prefect, lab: Lab) -> Ended:
    """Check the lab's certificates."""
    return finish(start_runbook(prefect, "check_certificates", lab, named="--clusters"))


def key_files(host: Host) -> list[str]:
    """List the private keys that etcd uses on a host."""
    listed = host.run("cd /etc/etcd/ssl && ls *-key.pem").check().stdout.split()
    assert len(listed) == 3
    return listed


# What the scanner can see

MARKER = "marker-0123456789abcdef"
CONTROL = Scanner({"it": spell_text(MARKER)})

PLANTS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda m: b"before " + m + b" after",
    "hexadecimal": lambda m: m.hex().encode(),
    "base64": lambda m: b'{"a": "' + base64.b64encode(b"x" + m) + b'"}',
    "base64 after an escaped newline": lambda m: b"\\n" + base64.b64encode(b"xy" + m),
    "base64 for URLs": lambda m: base64.urlsafe_b64encode(b"\xff\xfe" + m),
    "base64 of a pickle": lambda m: base64.b64encode(pickle.dumps({"result": [m.decode()]})),
    "base64 of a base64 pickle": lambda m: base64.b64encode(
        json.dumps({"data": base64.b64encode(pickle.dumps(m)).decode()}).encode()
    ),
    "base64 of a compressed pickle": lambda m: base64.b64encode(zlib.compress(pickle.dumps(m))),
    "gzip": gzip.compress,
    "UTF-16": lambda m: m.decode().encode("utf-16-le"),
}


@pytest.mark.parametrize("form", PLANTS)
def test_a_planted_secret_is_found_in_a_file(form: str, tmp_path: Path) -> None:
    """Each way in which Prefect, a log or a host could keep it."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(PLANTS[form](MARKER.encode()))
    (tmp_path / "other").write_bytes(PLANTS[form](b"marker-of-something-else"))
    assert CONTROL.search_tree(tmp_path) == {("it", str(tmp_path / "deep" / "file"))}


def test_a_planted_secret_is_found_in_a_database(tmp_path: Path) -> None:
    """Also where SQLite's pages split it, and packed in a pickle."""
    path = tmp_path / "a.db"
    packed = base64.b64encode(pickle.dumps({"secret": MARKER})).decode()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE log (a TEXT, b TEXT, c BLOB)")
        database.execute("CREATE INDEX log_a ON log (a)")
        database.execute("INSERT INTO log VALUES (?, ?, ?)", (MARKER * 2000, packed, b"nothing"))
        database.commit()
    assert CONTROL.search_database(path) == {("it", "log.a"), ("it", "log.b")}


def test_a_planted_private_key_is_found(tmp_path: Path) -> None:
    """As PEM inside JSON, as DER, in base64 of either, and as the number itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = {
        encoding: key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    }
    pem, der = made.values()
    scanner = Scanner({"key": spell_key(pem)})
    number = key.private_numbers().private_value
    plants = [json.dumps({"key": pem.decode()}).encode(), der, base64.b64encode(der),
              base64.b64encode(pem), str(number).encode()]  # fmt: skip
    for index, plant in enumerate(plants):
        (tmp_path / str(index)).write_bytes(plant)
    (tmp_path / "public").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    found = scanner.search_tree(tmp_path)
    assert found == {("key", str(tmp_path / str(index))) for index in range(len(plants))}


def test_a_planted_argument_and_an_open_key_file_are_seen(tmp_path: Path) -> None:
    """The watch sees a process that lives for a moment, and a key that others may read."""
    watch = Watch((tmp_path,))
    (tmp_path / "closed-key.pem").touch(mode=0o600)
    with watch.watching():
        (tmp_path / "open-key.pem").touch(mode=0o644)
        sleep = "import time; time.sleep(0.5)"
        subprocess.run([sys.executable, "-c", sleep, MARKER], check=True, timeout=30)
    assert any(CONTROL.search(arguments) for arguments in watch.arguments)
    assert [line.split("/")[-1] for line in watch.readable] == ["open-key.pem 100644"]


# The scan


def test_no_secret_is_in_prefects_home(scene: Scene) -> None:
    """Database with its write-ahead log, journal, results, server logs: raw and unpacked."""
    scanned = {path.name for path in _files(scene.prefect.home)}
    assert "prefect.db" in scanned
    assert sum(name.endswith(".jsonl") for name in scanned) >= 2
    assert scene.scanner.search_tree(scene.prefect.home) == set()


def test_no_secret_is_in_the_database(scene: Scene) -> None:
    """Logs, artifacts, parameters, states, events: every cell."""
    cells = list(_cells(scene.database))
    assert any(where == "log.message" and b"make key and request" in cell for where, cell in cells)
    assert any(where == "artifact.data" and b"marked" in cell for where, cell in cells)
    assert scene.scanner.search_database(scene.database) == set()


def test_no_private_key_of_any_kind_is_kept_by_the_runner(scene: Scene) -> None:
    """Also not the run's own client key, which is known to nobody: nothing has a key's header."""
    for top in (scene.prefect.home, scene.temporary):
        assert [path for path in _files(top) if PLAIN_KEY.search(path.read_bytes())] == []
    assert scene.scanner.search_tree(scene.temporary) == set()
    database = _cells(scene.database)
    assert [where for where, cell in database if PLAIN_KEY.search(cell)] == []


def test_no_secret_was_ever_an_argument(scene: Scene) -> None:
    """Neither of the runner's processes nor of the hosts', which were seen."""
    assert any(b"flows\0bootstrap_cluster" in line for line in scene.watch.arguments)
    assert any(b"openssl\0" in line for line in scene.watch.arguments)
    found = {(name, line) for line in scene.watch.arguments for name in scene.scanner.search(line)}
    assert found == set()
    assert [line for line in scene.watch.arguments if PLAIN_KEY.search(line)] == []


def test_no_secret_is_said(scene: Scene) -> None:
    """Standard output and error of a run that ends well, of a report and of a refusal."""
    for ended in scene.said:
        assert scene.scanner.search(ended.output.encode()) == set()
        assert not PLAIN_KEY.search(ended.output.encode())


def test_a_host_holds_its_own_keys_once_and_no_other_secret(scene: Scene) -> None:
    """Everything that was written to its disks and its memory disks, seen from outside."""
    for host in scene.lab.hosts.values():
        leader = host._leader()
        assert leader is not None
        disk = host.directory / "disk" / "upper"
        found = scene.scanner.search_tree(disk)
        for volatile in VOLATILE:
            found |= scene.scanner.search_tree(Path(f"/proc/{leader}/root/{volatile}"))
        # Before 3.5, etcd itself writes the password of a user that is made to its log.
        found = {x for x in found if x[0] != PASSWORD or "/var/lib/etcd" not in x[1]}
        own = {
            (f"{host.name}'s {name}", str(disk / "etc/etcd/ssl" / name)) for name in key_files(host)
        }
        assert found == own


def test_no_key_was_readable_by_others_at_any_time(scene: Scene) -> None:
    """On the runner and on the hosts, the staged files too."""
    assert {"ca-key.pem", *key_files(scene.lab["master01"])} <= scene.watch.keys
    assert scene.watch.readable == set()


# The modes


def test_the_authoritys_key_is_encrypted_and_the_owners_alone(scene: Scene) -> None:
    """PKCS #8 with a passphrase, mode 0600, and nothing else is left beside it."""
    key = scene.lab.authority / "ca-key.pem"
    assert key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    left = sorted(path.name for path in scene.lab.authority.iterdir())
    retired = [name for name in left if ".retired-" in name]
    assert len(retired) == 2
    assert stat.S_IMODE((scene.lab.authority / retired[0]).stat().st_mode) == 0o600
    names = ["ca-key.pem", "ca.bundle.pem", "ca.pem", "passphrase"]
    assert [name for name in left if name not in retired] == names
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(key.read_bytes(), None)


def test_the_journals_are_the_owners_alone(scene: Scene) -> None:
    """They hold no secret, and commands and hosts are nobody else's business all the same."""
    journals = scene.prefect.journals
    assert len(journals) >= 2
    for journal in journals:
        assert stat.S_IMODE(journal.parent.stat().st_mode) == 0o700
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        assert time.time() >= records[0]["time"]
