"""What a source would start: words and variables, each with where it is written and changed.

Every source of settings (a unit with its files, a pod's manifest) ends in a `Launch`; how etcd
takes it is in `flags`. No syntax of a file is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tasks.model.member_settings import Notice, Place


@dataclass(frozen=True, slots=True)
class Slot:
    """A piece of a file that holds one value, and how another value is written there.

    `write` raises ValueError for what cannot be written in that place.
    """

    path: str
    start: int
    end: int
    write: Callable[[str], str]

    def within(self, before: str, after: str = "") -> Slot:
        """Make the slot of a part: what stands before and after it is written with it."""
        write = self.write
        return replace(self, write=lambda value: write(f"{before}{value}{after}"))


@dataclass(frozen=True, slots=True)
class Given:
    """A value; `slots` are the places where it can be changed, the best one first.

    `tail` is the variable that the value ends with, where it was made of one.
    """

    text: str
    place: Place
    slots: tuple[Slot, ...] = ()
    tail: Given | None = None

    def after(self, prefix: str) -> Given:
        """Get what follows a prefix; what one variable gives alone is changed at the variable."""
        text = self.text.removeprefix(prefix)
        tail = self.tail if self.tail is not None and self.tail.text == text else None
        own = tuple(slot.within(prefix) for slot in self.slots)
        return Given(text, self.place, (*(tail.slots if tail else ()), *own))


@dataclass(frozen=True, slots=True)
class Launch:
    """A command with its variables; the first word is the program."""

    words: tuple[Given, ...] = ()
    variables: Mapping[str, Given] = field(default_factory=dict)
    faults: tuple[Notice, ...] = ()
    ignored: tuple[Notice, ...] = ()


class NotUnderstood(ValueError):
    """Something whose meaning cannot be told for certain; the sentence says what to do."""

    def __init__(self, place: Place, sentence: str, *, is_fatal: bool = False) -> None:
        super().__init__(f"{place}: {sentence}")
        self.notice = Notice(place, sentence, is_fatal)
