"""The seals of a journal's lines: each is of its line and of the seal before it.

Whoever changes, adds or removes a line has to write every later seal anew, those of later journals
that name this one, too. A seal proves nothing against who does that; one that is kept elsewhere (a
report in Prefect's database, a ticket) does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SHORT = 32
"""So many digits of a seal are in a report, on one line of a page: 128 bits."""
IN_REPORT = re.compile(r"(\d{8}T[\d.]+Z-[0-9a-f-]+\.jsonl) ([0-9a-f]{32})")
"""A journal's name and its last seal, as a report tells them."""
_SEAL = re.compile(rb', "chain": "([0-9a-f]{64})"\}$')


@dataclass(frozen=True, slots=True)
class CheckedLines:
    """What a journal's seals say: the faults with their line, and every seal in order.

    `is_sealed`: whether there are any; journals of earlier versions have none.
    """

    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    seals: tuple[str, ...]

    @property
    def is_sealed(self) -> bool:
        """Whether the journal has seals at all."""
        return bool(self.seals)


def seal_line(row: Mapping[str, object], before: str) -> tuple[bytes, str]:
    """Write a row as a line with its seal; `before` is the seal of the line before, or nothing."""
    body = json.dumps(row, default=str).encode()
    seal = _seal(body, before)
    return body[:-1] + f', "chain": "{seal}"}}\n'.encode(), seal


def read_seal(line: bytes) -> str:
    """Get a line's seal; nothing where it has none."""
    found = _SEAL.search(line.rstrip(b"\n"))
    return found[1].decode() if found else ""


def check_lines(lines: Iterable[bytes]) -> CheckedLines:
    """Compare each line of a journal with its seal.

    A line that is no JSON was left half-written by a power cut; one that somebody has broken is
    told by the line after it.
    """
    faults, remarks, seals, bare = list[str](), list[str](), list[str](), list[str]()
    before = ""
    for number, line in enumerate((line.rstrip(b"\n") for line in lines), 1):
        found = _SEAL.search(line)
        if found is None:
            (bare if _is_json(line) else remarks).append(f"line {number}")
            continue
        body, seal = line[: found.start()] + b"}", found[1].decode()
        if seal != _seal(body, before):
            faults.append(
                f"line {number} is not what was written after line {number - 1}: it was changed, "
                "or what stood before it was taken away or added"
            )
        seals.append(seal)
        before = seal
    if seals:
        faults += [f"{where} has no seal: it was added, or changed" for where in bare]
    half = "is half-written: its runner died there, or its machine"
    return CheckedLines(tuple(faults), tuple(f"{where} {half}" for where in remarks), tuple(seals))


def _seal(body: bytes, before: str) -> str:
    return hashlib.sha256(before.encode() + body).hexdigest()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
