"""The kinds of values that an inventory holds: names, addresses, paths; and their rules."""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

HOST_PLACE = "{host}"
MEMBER_PLACE = "{member}"
ADDRESS_PLACE = "{address}"
"""What a template has for the host's name, for the member's, and for the host's address."""

_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_MEMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LOGIN = re.compile(r"[\w][\w.@+\\-]{0,254}\$?", re.ASCII)
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def is_ip_address(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address, without a zone, which URLs cannot have."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def is_local(host: str) -> bool:
    """Whether a URL's host is a host's own to itself alone."""
    return host == "localhost" or (is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def _check_address(text: str) -> str:
    if is_ip_address(text):
        return text
    labels = text.split(".")
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():  # noqa: PLR2004 - RFC 1035
        msg = f"{text!r} is neither an IP address nor a host name"
        raise ValueError(msg)
    return text


def _check_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        msg = f"{text!r} is not a name: lower-case letters, digits, dots, dashes, at most 63"
        raise ValueError(msg)
    return text


def _check_member_name(text: str) -> str:
    if not _MEMBER.fullmatch(text):
        msg = f"{text!r} is not a member's name: letters, digits, dots, dashes, underscores"
        raise ValueError(msg)
    return text


def _check_account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        msg = f"{text!r} is not the name of a Unix account"
        raise ValueError(msg)
    return text


def _check_login(text: str) -> str:
    if not _LOGIN.fullmatch(text):
        msg = f"{text!r} is not the name of an account that logs in"
        raise ValueError(msg)
    return text


def is_same_host(one: str, other: str) -> bool:
    """Whether two names may be one host's: but for case, and a domain that only one of them has."""
    if is_ip_address(one) or is_ip_address(other):
        return one == other
    names = (one.lower(), other.lower())
    return names[0] == names[1] or any(
        short == full.partition(".")[0] for short, full in (names, names[::-1])
    )


def fill(template: str, host: str, member: str) -> str:
    """Put a host's name and its member's into a template."""
    return template.replace(HOST_PLACE, host).replace(MEMBER_PLACE, member)


def _check_file_template(text: str) -> str:
    _check_absolute(PurePosixPath(fill(text, "host", "member")))
    return text


def _check_absolute(path: PurePosixPath) -> PurePosixPath:
    if not path.is_absolute() or ".." in path.parts or re.search(r"[^\w./@+-]", str(path)):
        msg = f"'{path}' is not an absolute path of letters, digits and . _ - + @"
        raise ValueError(msg)
    return path


Address = Annotated[str, AfterValidator(_check_address)]
Name = Annotated[str, AfterValidator(_check_name)]
MemberName = Annotated[str, AfterValidator(_check_member_name)]
Account = Annotated[str, AfterValidator(_check_account)]
LoginName = Annotated[str, AfterValidator(_check_login)]
"""As directories have them, too: john.doe, Admin, svc@corp.example.org, CORP\\svc."""
HostPath = Annotated[PurePosixPath, AfterValidator(_check_absolute)]
FileTemplate = Annotated[str, AfterValidator(_check_file_template)]
Port = Annotated[int, Field(ge=1, le=65535)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
