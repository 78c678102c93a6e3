"""Authorities and pairs by openssl, as the scripts of kubespray and kubeasz make them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

CENTURY_DAYS = 36500
RSA = ("rsa:2048",)


@dataclass(frozen=True)
class Texts:
    """A certificate and its key, PEM."""

    certificate: str
    key: str


def run(directory: Path, *words: str) -> None:
    """Run openssl in a directory."""
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def make_authority(directory: Path, subject: str) -> Texts:
    """Make ca.pem and ca-key.pem; without a key usage, as openssl's default is."""
    run(
        directory,
        *"req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca.pem".split(),
        *("-days", str(CENTURY_DAYS), "-subj", subject),
    )
    return Texts((directory / "ca.pem").read_text(), (directory / "ca-key.pem").read_text())


def make_pairs(
    directory: Path,
    subjects: dict[str, str],
    extensions: str,
    days: int,
    key: tuple[str, ...] = RSA,
) -> dict[str, Texts]:
    """Make pairs that the authority in the directory has signed, by stem; all keys at once."""
    (directory / "extensions").write_text(extensions)
    words = {
        stem: ["req", "-new", "-newkey", *key, "-nodes", "-keyout", f"{stem}-key.pem"]
        for stem in subjects
    }
    making = [
        subprocess.Popen(
            ["openssl", *words[stem], "-subj", subject, "-out", f"{stem}.csr"],
            cwd=directory,
            stderr=subprocess.DEVNULL,
        )
        for stem, subject in subjects.items()
    ]
    for one in making:
        assert one.wait() == 0
    made = {}
    for stem in subjects:
        run(
            directory,
            *f"x509 -req -in {stem}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial".split(),
            *f"-days {days} -extfile extensions -out {stem}.pem".split(),
        )
        made[stem] = Texts(
            (directory / f"{stem}.pem").read_text(), (directory / f"{stem}-key.pem").read_text()
        )
    return made
