"""What is printed: medians and ratios, the phases, the aims, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.contenders import Measurement
from tests.bench.phases import OVERHEAD, Phase, overhead

Results = dict[str, list[Measurement]]

SCRIPT = "(a) shell script"
ANSIBLE = "(b) Ansible playbook"
COLD = "(c) bootstrap_cluster, embedded API"
SERVED = "(d) bootstrap_cluster, server running"
FLOOR = "floor: etcd's own start"

AIMS = ((SERVED, ANSIBLE, 0.4), (SERVED, SCRIPT, 0.3), (COLD, ANSIBLE, 0.8))
OVERHEAD_AIM = 0.25


def machine_line(ansible: Path, etcd: str, hosts: int) -> str:
    """Tell the machine and the versions of what was measured."""
    asked = subprocess.run(
        [ansible / "bin" / "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    core = next(row for row in asked.stdout.splitlines() if row.startswith("ansible-core=="))
    return (
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"Prefect {version('prefect')}, asyncssh {version('asyncssh')}, "
        f"{core.replace('==', ' ')}, etcd {etcd}, {hosts} hosts; "
        f"load of the last minutes {' '.join(f'{load:.1f}' for load in os.getloadavg())}"
    )


def print_results(console: Console, results: Results, first: Measurement) -> None:
    """Print all tables; `first` is the very first run, on an empty home."""
    console.print(_medians(results))
    console.print(f"the very first run, on an empty PREFECT_HOME: {first.seconds:.1f} s")
    console.print(_phases({name: results[name] for name in (COLD, SERVED)}))
    for line in _aims(results):
        console.print(line, highlight=False)


def _medians(results: Results) -> Table:
    table = Table(title="From bare hosts to a healthy cluster, seconds")
    for column in ("", "median", "all", "of (a)", "of (b)"):
        table.add_column(column, justify="left" if column in ("", "all") else "right")
    script, ansible = _median(results[SCRIPT]), _median(results[ANSIBLE])
    for name, measurements in results.items():
        middle = _median(measurements)
        every = " ".join(f"{one.seconds:.2f}" for one in measurements)
        ratios = [f"{middle / other:.2f}" for other in (script, ansible)]
        table.add_row(name, f"{middle:.2f}", every, *ratios)
    return table


def _phases(results: Results) -> Table:
    table = Table(title="Where the time goes, medians in seconds (and share)")
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    for phase in Phase:
        table.add_row(phase.value, *(_share(runs, [phase]) for runs in results.values()))
    table.add_section()
    table.add_row("Prefect and Python together", *(_share(r, OVERHEAD) for r in results.values()))
    table.add_row("whole process", *(f"{_median(runs):.2f}       " for runs in results.values()))
    return table


def _share(runs: Sequence[Measurement], phases: Sequence[Phase]) -> str:
    middle = median(sum(run.phases[phase] for phase in phases) for run in runs)
    return f"{middle:.2f} ({middle / _median(runs):4.0%})"


def _aims(results: Results) -> list[str]:
    lines = []
    for name, opponent, factor in AIMS:
        reached = _median(results[name]) / _median(results[opponent])
        lines.append(f"{name} at most {factor:g} x {opponent}: {_verdict(reached, factor)}")
    share = median(overhead(run.phases) / run.seconds for run in results[SERVED])
    lines.append(
        f"Prefect and Python at most {OVERHEAD_AIM:g} of {SERVED}: {_verdict(share, OVERHEAD_AIM)}"
    )
    return lines


def _verdict(reached: float, aim: float) -> str:
    return f"{reached:.2f}, {'met' if reached <= aim else 'missed'} ({reached / aim:.2f} of it)"


def _median(measurements: Sequence[Measurement]) -> float:
    return median(one.seconds for one in measurements)
