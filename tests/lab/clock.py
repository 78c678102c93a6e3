"""A host's wrong clock, as far as programs that ask libc for the time can see it.

A container shares the kernel's real-time clock (time namespaces only cover the monotonic ones),
so a small library in /etc/ld.so.preload adds the difference. It is compiled on this machine (gcc).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.commands import execute
from tests.lab.errors import CommandFailed, LabError

if TYPE_CHECKING:
    from pathlib import Path

PRELOAD = "etc/ld.so.preload"

SOURCE = """\
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += SECONDS;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (out != NULL)
        *out = precise.tv_sec;
    return precise.tv_sec;
}
"""


def skew(root: Path, workplace: Path, seconds: int) -> None:
    """Make the clock of the host with that root differ by `seconds`; 0 undoes it.

    LabError when there is no C compiler; nothing was changed then.
    """
    if seconds == 0:
        (root / PRELOAD).unlink(missing_ok=True)
        return
    library = f"usr/local/lib/lab-clock{seconds:+d}.so"
    source = workplace / "clock.c"
    source.write_text(SOURCE)
    options = ["-shared", "-fPIC", "-O1", f"-DSECONDS={seconds}"]
    try:
        execute(["gcc", *options, "-o", str(root / library), str(source)]).check()
    except CommandFailed as error:
        raise LabError(f"a skewed clock needs a compiler (apt-get install gcc): {error}") from error
    temporary = (root / PRELOAD).with_suffix(".new")
    temporary.write_text(f"/{library}\n")
    temporary.rename(root / PRELOAD)
