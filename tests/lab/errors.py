"""What can go wrong in the lab. Messages say what, where, and what to do next."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot do what was asked; the message is for the person at the terminal."""


class HostError(LabError):
    """A host did not do what was asked; the message ends with the tail of its console."""


class CommandFailed(LabError):
    """A command ended with a status other than 0."""


class CommandTimedOut(LabError):
    """A command did not end in time; it and its children were killed."""
