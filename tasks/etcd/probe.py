"""The probe of a run's gap in service: linearizable reads, as the cluster's clients make them.

It has a thread and an event loop of its own, so that the runner's work does not stretch the gaps
that it measures. It reads; where it is to write, it writes leases that end by themselves, which
no key, no watch and no revision knows of.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from time import monotonic

from tasks.etcd.client import EtcdClient
from tasks.etcd.gateway import Endpoint
from tasks.etcd.login import Login
from tasks.model.errors import RunbookError
from tasks.model.gap import Gap, Meter, read_meters

INTERVAL_SECONDS = 0.05
ATTEMPT_SECONDS = 1.0
STOP_SECONDS = 5.0
SWITCH_SECONDS = 0.0005
FIRST_STAGE = "before the first step"

_Ask = Callable[[EtcdClient, Endpoint], Awaitable[None]]


class Probe:
    """Reads 20 times a second as one careful client, and as one of each endpoint.

    The careful one goes to the next endpoint at once when a read fails or takes longer than a
    second; the others never do. With `writes` another careful one writes. `mark` and `use` may be
    called from any thread.
    """

    def __init__(
        self,
        endpoints: tuple[Endpoint, ...],
        tls: ssl.SSLContext,
        *,
        login: Login | None = None,
        interval_seconds: float = INTERVAL_SECONDS,
        writes: bool = False,
    ) -> None:
        self._endpoints = endpoints
        self._login = login.apart() if login else None
        self._interval = interval_seconds
        self._tls = tls
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._main, name="service probe", daemon=True)
        now = monotonic()
        self._careful = Meter(now)
        self._unforgiving = {endpoint.name: Meter(now) for endpoint in endpoints}
        self._writer = Meter(now) if writes else None
        self._ended: float | None = None
        self._switch_interval = sys.getswitchinterval()
        self.mark(FIRST_STAGE)

    def start(self) -> None:
        """Begin to read."""
        self._switch_interval = sys.getswitchinterval()
        # The runner's own thread would hold the interpreter for 5 ms at each of a read's turns.
        sys.setswitchinterval(SWITCH_SECONDS)
        self._thread.start()

    def stop(self) -> None:
        """End the reading, within some seconds whatever the endpoints do; twice does no harm."""
        if self._ended is None:
            self._ended = monotonic()
            self._ending.set()
            self._thread.join(STOP_SECONDS)
            sys.setswitchinterval(self._switch_interval)

    def mark(self, stage: str) -> None:
        """Begin a stage: what is read from now on counts to it."""
        now = monotonic()
        with self._lock:
            for meter in (self._careful, *self._unforgiving.values(), self._writer):
                if meter is not None:
                    meter.mark(stage, now)

    def use(self, tls: ssl.SSLContext) -> None:
        """Read with another client certificate and trust from now on, over new connections."""
        self._tls = tls

    def results(self) -> tuple[Gap, ...]:
        """Tell what was met so far, stage by stage."""
        with self._lock:
            now = self._ended or monotonic()
            return read_meters(self._careful, self._unforgiving, now, self._writer)

    def _main(self) -> None:
        asyncio.run(self._read_all())

    async def _read_all(self) -> None:
        readers = [self._read_carefully()]
        readers += [self._read_one(endpoint) for endpoint in self._endpoints]
        readers += [self._write_carefully(self._writer)] if self._writer else []
        tasks = [asyncio.ensure_future(reader) for reader in readers]
        while not self._ending.is_set():
            await asyncio.sleep(self._interval)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_carefully(self) -> None:
        await self._repeat(self._carefully(self._careful, EtcdClient.read_linearizable))

    async def _write_carefully(self, meter: Meter) -> None:
        await self._repeat(self._carefully(meter, EtcdClient.write_lease))

    def _carefully(self, meter: Meter, ask: _Ask) -> Callable[[EtcdClient], Awaitable[None]]:
        """Make what asks one endpoint, and the next at once where that fails."""
        chosen = 0

        async def do(client: EtcdClient) -> None:
            nonlocal chosen
            for _ in self._endpoints:
                if await self._attempt(client, self._endpoints[chosen], meter, ask):
                    return
                chosen = (chosen + 1) % len(self._endpoints)

        return do

    async def _read_one(self, endpoint: Endpoint) -> None:
        meter = self._unforgiving[endpoint.name]

        async def read(client: EtcdClient) -> None:
            await self._attempt(client, endpoint, meter, EtcdClient.read_linearizable)

        await self._repeat(read)

    async def _repeat(self, read: Callable[[EtcdClient], Awaitable[None]]) -> None:
        while True:
            tls = self._tls
            async with EtcdClient(
                self._endpoints,
                tls,
                timeout_seconds=ATTEMPT_SECONDS,
                login=self._login,
                explains=False,
            ) as client:
                while self._tls is tls:
                    began = monotonic()
                    await read(client)
                    await asyncio.sleep(max(0.0, self._interval - (monotonic() - began)))

    async def _attempt(
        self, client: EtcdClient, endpoint: Endpoint, meter: Meter, ask: _Ask
    ) -> bool:
        try:
            await ask(client, endpoint)
        except RunbookError as error:
            with self._lock:
                meter.fail(error.message)
            return False
        with self._lock:
            meter.acknowledge(monotonic())
        return True
