"""The one error tree of the runbooks.

    RunbookError
    ├── Refused              nothing was changed; the answer is the operator's
    │   ├── InvalidInventory     a field of the inventory, or a file that it names, is wrong
    │   ├── PreflightFailed      findings on the hosts that forbid the run
    │   ├── HostKeyRefused       an SSH host key is unknown or is not the known one
    │   ├── AccessRefused        SSH authentication or sudo was denied
    │   ├── AuthorityRefused     the authority cannot be opened, or may not sign
    │   ├── LockHeld             another run works on this cluster
    │   ├── Rejected             a person said no to the plan
    │   └── RecordUnreachable    Prefect's API, or the disk of PREFECT_HOME, when a run begins
    ├── Transient            a retry may help; the step is idempotent
    │   ├── HostUnreachable      no connection, or it broke
    │   │   └── HostSilent           nothing ever came back from it: not tried again
    │   ├── CommandTimedOut      a remote command did not end in time
    │   └── EtcdUnavailable      no answer, no leader, or not yet healthy
    ├── NotSeen              a host or client could not be looked at: nothing is known of it
    ├── CheckFailed          a read-only check found what must be seen to; nothing was changed
    └── Unverified           something was changed and could not be confirmed: stop here
        ├── CommandFailed        a remote command ended with a status that is not expected
        ├── EtcdRefused          etcd answered a request with an error that a retry won't change
        │   └── NotAuthorised        its authentication (RBAC): no user, wrong password, no rights
        ├── CertificateRefused   a host's request or certificate is not what the plan says
        ├── MemberFailed         a member did not become healthy
        ├── InventoryEdited      the inventory file changed during the run and was not written
        ├── LockLost             the cluster's lock is gone in mid-run
        └── JournalUnwritable    the run's journal takes no more lines; no step begins without

`state_name` is the state in which Prefect shows a run that ended so; it is the class's, or that of
the class above. A message says what is wrong, where, and what to do next. No message carries a
secret: those who raise take them out before.
"""

from __future__ import annotations


class RunbookError(Exception):
    """Anything that ends a runbook; `host` is set where one host is to blame."""

    exit_status = 1
    state_name = "Failed"

    def __init__(self, message: str, *, host: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.host = host

    def __str__(self) -> str:
        if self.host is None or self.message.startswith(f"{self.host}:"):
            return self.message
        return f"{self.host}: {self.message}"


class Refused(RunbookError):
    """Nothing was changed, and nothing will be until the operator changes what is named."""

    exit_status = 2
    state_name = "Refused"


class Transient(RunbookError):
    """It may work when tried again; what was tried is idempotent."""


class Unverified(RunbookError):
    """Something may have been changed and is not confirmed; observe before anything else."""


class NotSeen(RunbookError):
    """What could be seen is done or was in order; of the rest, named, nothing is known."""

    exit_status = 3
    state_name = "NotSeen"


class CheckFailed(RunbookError):
    """A read-only check found what must be seen to; nothing was changed."""

    state_name = "CheckFailed"


class InvalidInventory(Refused):
    """The inventory is wrong; `problems` has one line for each field."""

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        head = f"{source}: " if len(problems) == 1 else f"{source}:\n  - "
        super().__init__(head + "\n  - ".join(problems))
        self.source = source
        self.problems = problems


class PreflightFailed(Refused):
    """Findings that forbid the run; `findings` are their sentences, all of them."""

    def __init__(self, findings: tuple[str, ...]) -> None:
        super().__init__(
            f"preflight found {len(findings)} reason(s) not to start:\n  - "
            + "\n  - ".join(findings)
        )
        self.findings = findings


class HostKeyRefused(Refused):
    """The host's SSH key is unknown or is not the one in known_hosts."""


class AccessRefused(Refused):
    """SSH authentication or `sudo -n` was denied."""


class AuthorityRefused(Refused):
    """The certificate authority cannot be opened, or may not sign what is asked."""


class LockHeld(Refused):
    """Another run holds the cluster's lock; the message names it."""

    state_name = "LockedOut"


class Rejected(Refused):
    """A person was shown the plan and said no."""

    state_name = "Rejected"


class RecordUnreachable(Refused):
    """Prefect's API, or PREFECT_HOME's disk, was not usable when a run was to begin."""


class HostUnreachable(Transient):
    """No SSH connection to the host, or it broke."""


class HostSilent(HostUnreachable):
    """Nothing came back from a host that this run has never reached: nobody is there."""


class CommandTimedOut(Transient):
    """A remote command did not end within its limit, in seconds; it may still run."""


class EtcdUnavailable(Transient):
    """An endpoint gave no answer, has no leader or is not healthy yet."""


class CommandFailed(Unverified):
    """A remote command ended with an unexpected exit status."""

    def __init__(self, host: str, command: str, exit_status: int, stderr: str) -> None:
        detail = stderr.strip() or "(nothing on standard error)"
        super().__init__(f"'{command}' ended with status {exit_status}: {detail}", host=host)
        self.command = command
        self.status = exit_status
        self.stderr = stderr


class EtcdRefused(Unverified):
    """Etcd answered with an error that trying again does not change; `code` is gRPC's."""

    def __init__(self, endpoint: str, message: str, code: int) -> None:
        super().__init__(f"{endpoint}: {message}")
        self.endpoint = endpoint
        self.code = code


class NotAuthorised(EtcdRefused):
    """Etcd's authentication (RBAC) forbids what was asked; `sentence` has the way out."""

    def __init__(self, endpoint: str, sentence: str, code: int) -> None:
        super().__init__(endpoint, sentence, code)
        self.sentence = sentence


class CertificateRefused(Unverified):
    """A signing request or a certificate is not what the plan says."""


class MemberFailed(Unverified):
    """A member did not become healthy; the message carries the last lines of its journal."""


class InventoryEdited(Unverified):
    """The inventory file is not the one that was planned for, and was not overwritten."""


class LockLost(Unverified):
    """The cluster's lock is no longer held by this run."""


class JournalUnwritable(Unverified):
    """The run's journal takes no more lines; no further step was begun."""
