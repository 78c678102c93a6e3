"""`python -m tests.bench.members`: a dead member replaced by hand and by `replace_member`.

One cluster of three with 100 MB of data on the same hosts, in one run, in turn: a host loses its
power, the bare one takes its place, and the dead one is reinstalled to be the next bare one. Timed
from the cut to the end of the command, which sees every member healthy; two clients write all the
time. Both know who is dead.
Exit status: 0 measured, 1 not measured.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.bench.server import prefect_server, runner_environment
from tests.integration.members import Scene, check_cluster, fill, raise_cluster
from tests.integration.runbooks import Prefect
from tests.integration.writers import Writers
from tests.lab.installation import OPERATOR
from tests.lab.lab import Lab
from tests.lab.preparedness import unavailable_reason

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]
ROUNDS = 2
RUN_SECONDS = 180.0


def main() -> int:
    """Measure both in turn; returns the exit status."""
    if (reason := unavailable_reason()) is not None:
        print(f"bench: {reason}")
        return 1
    times: dict[str, list[float]] = {"by hand": [], "replace_member": []}
    with (
        tempfile.TemporaryDirectory(prefix="etcd-bench-") as directory,
        Lab.start("bench", hosts=4) as lab,
        prefect_server(Path(directory) / "home") as server,
        server.awake(),
    ):
        prefect = Prefect(server.home, server.api)
        environment = runner_environment(server.home, server.api)
        work = Path(directory)
        scene = raise_cluster(lambda **_: lab, prefect, work)
        fill(lab, "master01", 100)
        dead, new = "master03", "master04"
        for number in range(ROUNDS):
            for name, seconds in times.items():
                command, extra = commands(scene, dead, new, work / f"{number}{name}")[name]
                log = work / "log"
                logs = work / f"{number}{name}" / "writers"
                logs.mkdir()
                with Writers(lab, logs, files=scene.clients) as writers, log.open("w") as output:
                    began = time.monotonic()
                    lab[dead].power_cut()
                    ended = subprocess.run(
                        command,
                        cwd=ROOT,
                        env={**environment, **extra},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        timeout=RUN_SECONDS,
                        check=False,
                    )
                    seconds.append(time.monotonic() - began)
                if ended.returncode != 0:
                    print(f"bench: {name} failed:\n{log.read_text()}")
                    return 1
                text = scene.inventory.read_text()
                old, fresh = (f"{{name: {h}, address: {lab[h].address}}}" for h in (dead, new))
                scene.inventory.write_text(text.replace(old, fresh))
                if name == "replace_member":
                    check_cluster(prefect, scene, ["master01", "master02", new])
                report = writers.check(on="master01")
                print(
                    f"{name}: {seconds[-1]:.1f} s; {report.acknowledged} writes, "
                    f"{len(report.lost)} lost, longest time without one {report.longest_gap:.2f} s",
                    flush=True,
                )
                lab[dead].reinstall()
                time.sleep(6)  # what etcd asks for before it takes the next change
                dead, new = new, dead
    hand, ours = (statistics.median(seconds) for seconds in times.values())
    print(f"replace_member / by hand: {ours / hand:.2f} (medians of {ROUNDS})")
    return 0


def commands(
    scene: Scene, dead: str, new: str, work: Path
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Write both contenders' commands and what they need in their environment."""
    lab = scene.lab
    work.mkdir(mode=0o700)
    left = [host for host in scene.members if host != dead]
    authority = lab.authority
    key = serialization.load_pem_private_key(
        (authority / "ca-key.pem").read_bytes(), (authority / "passphrase").read_bytes().strip()
    )
    clear = work / "clear-key.pem"
    clear.touch(0o600)
    clear.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    script = {
        "DEAD": dead,
        "NEW": scene.address(new),
        "HOSTS": " ".join(map(scene.address, left)),
        "SSH_USER": OPERATOR,
        "SSH_KEY": str(lab.key),
        "KNOWN_HOSTS": str(lab.known_hosts),
        "WORK": str(work),
        "CA": str(authority / "ca.pem"),
        "CA_KEY": str(clear),
        "HOME": os.environ.get("HOME", "/"),
    }
    runbook = [
        *(sys.executable, "-m", "flows", "replace_member", "--cluster", str(scene.inventory)),
        *("--member", dead, "--replacement", scene.address(new), "--write-inventory"),
    ]
    return {
        "by hand": (["bash", str(HERE / "replacement.sh")], script),
        "replace_member": (runbook, {}),
    }


if __name__ == "__main__":
    sys.exit(main())
