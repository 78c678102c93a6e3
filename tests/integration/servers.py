"""A team's server on loopback: two API servers behind Caddy, services, PostgreSQL and Redis."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from tasks.engine.embedded import SETTINGS
from tests.integration.postgres import Postgres, postgres
from tests.integration.runbooks import ROOT, Prefect
from tests.lab.packages import unpack_packages

START_SECONDS = 240.0


def free_port() -> int:
    """Find a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A program that can be killed, and started again with the same words."""

    def __init__(self, words: list[str], log: Path, **environment: str) -> None:
        self._words, self._log, self._environment = words, log, environment
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Start it, if it is not up."""
        if self._process is None or self._process.poll() is not None:
            inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    self._words,
                    env=inherited | self._environment,
                    cwd=self._log.parent,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def wait_for(url: str, log: Path) -> None:
    """Wait until a URL answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
            return
        assert time.monotonic() < deadline, log.read_text()[-5000:]
        time.sleep(0.1)


class TeamServer:
    """What deployments/team.sh makes with API_SERVERS=2, by the same settings; up in the block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._database: Postgres
        self._parts: dict[str, Process] = {}
        self._urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._database = self._stack.enter_context(postgres())
        programs = unpack_packages(
            ("caddy", "redis-server"),
            Path(self._stack.enter_context(tempfile.TemporaryDirectory())),
        )
        redis, ports, proxy = free_port(), (free_port(), free_port()), free_port()
        libraries = {"LD_LIBRARY_PATH": str(programs / "usr/lib/x86_64-linux-gnu")}
        settings = {
            **{k: v for k, v in SETTINGS.items() if "_SERVICES_" in k and "TRIGGERS" not in k},
            "PREFECT_API_DATABASE_CONNECTION_URL": self._database.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            **_redis_settings(redis),
        }
        self._add(
            "redis", [str(programs / "usr/bin/redis-server"), *_redis_words(redis)], libraries
        )
        prefect = [sys.executable, "-m", "prefect", "--no-prompt", "server"]
        for name, port in zip(("one", "other"), ports, strict=True):
            words = [*prefect, "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
            home = {"PREFECT_HOME": str(self._home(name)), "PREFECT_SERVER_API_PORT": str(port)}
            self._urls[name] = f"http://127.0.0.1:{port}/api/health"
            self._add(name, words, {**settings, **home})
        home = {"PREFECT_HOME": str(self._home("services"))}
        self._add("services", [*prefect, "services", "start"], {**settings, **home})
        site = (ROOT / "deployments" / "etcd-runbooks.caddy").read_text()
        servers = " ".join(f"127.0.0.1:{port}" for port in ports)
        site = site.replace("\ttls TLS\n", "").replace("API_SERVERS", servers)
        site = site.replace("SERVER_NAME", f"{{\n\tadmin off\n}}\nhttp://127.0.0.1:{proxy}")
        (self._directory / "Caddyfile").write_text(site)
        words = [str(programs / "usr/bin/caddy"), "run", "--config", "Caddyfile"]
        self._add("proxy", words, {"HOME": str(self._directory)})
        self._urls["proxy"] = f"http://127.0.0.1:{proxy}/api/health"
        self.prefect = Prefect(self._home("worker"), f"http://127.0.0.1:{proxy}/api")
        for name in ("redis", "proxy"):
            self._parts[name].start()
        self.start("one")  # which makes the database's tables
        for part in self._parts.values():
            part.start()
        for name in self._urls:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for part in reversed(self._parts.values()):
            part.kill()
        self._stack.close()

    def start(self, name: str) -> None:
        """Start a part; returns when it answers, where it can be asked."""
        if name == "postgresql":
            self._database.start()
            return
        self._parts[name].start()
        if name in self._urls:
            wait_for(self._urls[name], self._log(name))

    def kill(self, name: str) -> None:
        """End a part as a power cut does."""
        if name == "postgresql":
            self._database.stop()
        else:
            self._parts[name].kill()

    def restart(self, name: str, seconds: float) -> None:
        """Take a part away for some seconds."""
        self.kill(name)
        time.sleep(seconds)
        self.start(name)

    def _add(self, name: str, words: list[str], environment: dict[str, str]) -> None:
        self._parts[name] = Process(words, self._log(name), **environment)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _home(self, name: str) -> Path:
        home = self._directory / name
        home.mkdir(exist_ok=True)
        return home


def _redis_words(port: int) -> list[str]:
    return f"--port {port} --bind 127.0.0.1 --appendonly yes --dir .".split()


def _redis_settings(port: int) -> dict[str, str]:
    """Read what team.sh writes into redis.env, for another port and without a password."""
    text = (ROOT / "deployments" / "team.sh").read_text()
    lines = text.split("put 600 $SETTINGS/redis.env <<EOF\n")[1].split("\nEOF\n")[0].splitlines()
    pairs = (line.split("=", 1) for line in lines if line.startswith("PREFECT_"))
    place = ":$password@127.0.0.1:6390"
    return {name: value.replace(place, f"127.0.0.1:{port}") for name, value in pairs}
