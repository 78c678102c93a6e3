"""Whether peers would turn a member away for the address that it comes from."""

from __future__ import annotations

import pytest

from tasks.plans.sources import Way, find_strange

OWN = ("m1", "localhost", "fd00::1")


@pytest.mark.parametrize(
    ("source", "sans", "resolved", "is_strange"),
    [
        ("fd00::1", OWN, {"m1": ("fd00::1",)}, False),
        ("fd00:0::1", OWN, {}, False),
        ("10.0.0.1", OWN, {"m1": ("fd00::1",)}, True),
        ("10.0.0.1", OWN, {"m1": ()}, True),
        ("10.0.0.1", OWN, {"m1": ("10.0.0.1", "fd00::1")}, False),
        ("10.0.0.1", OWN, {}, False),
        ("10.0.0.1", ("10.0.0.9", "localhost"), {}, True),
        ("10.0.0.1", (), {}, False),
    ],
)
def test_an_address_must_be_in_the_certificate_or_be_its_names(
    source: str, sans: tuple[str, ...], resolved: dict[str, tuple[str, ...]], is_strange: bool
) -> None:
    """As the peer resolves them; of what was not asked there nothing is said."""
    found = find_strange([Way("m1", "m2", source)], {"m1": sans}, {"m2": resolved}, {"m2"})
    assert [finding.host for finding in found] == ["m1"] * is_strange


def test_what_to_do_depends_on_whether_the_certificate_is_made_anew() -> None:
    """A member that moves gets one; the others have theirs."""
    ways = [
        *(Way("m1", other, "10.0.0.1") for other in ("m2", "m3")),
        *(Way("m2", other, "10.0.0.2") for other in ("m1", "m3")),
    ]
    sans = {"m1": ("fd00::1",), "m2": ("fd00::2", "10.0.0.2"), "m3": ("fd00::3",)}
    (moved,) = find_strange(ways, sans, {}, {"m1"})
    assert "reaches the other members from 10.0.0.1" in moved.sentence
    assert "would not name (fd00::1)" in moved.sentence
    assert "rotate_certificates" not in moved.sentence
    (other,) = find_strange([Way("m3", "m1", "10.0.0.3")], sans, {}, {"m1"})
    assert "m3: reaches m1 from 10.0.0.3, which its peer certificate does not name" in str(other)
    assert "rotate_certificates" in other.sentence
