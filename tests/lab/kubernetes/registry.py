"""A registry on the lab's bridge, which nodes ask in place of the one that an image's name says.

It speaks what containerd needs of the distribution API over HTTP: manifests and blobs. Faults are
its `Fault`: it knows no image, or it breaks off in the midst of a layer.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
import threading
from enum import Enum, auto
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

from typing_extensions import override

from tests.lab.kubernetes.images import write_archive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab.host import Host

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIGURATION = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

PLACE = "etc/containerd/certs.d"
ASKS = f'\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/{PLACE}"\n'
HOSTS = """\
server = "{url}"
[host."{url}"]
  capabilities = ["pull", "resolve"]
"""


class Fault(Enum):
    """What is wrong with a registry."""

    KNOWS_NOTHING = auto()
    BREAKS_OFF = auto()


class Registry:
    """Images by what follows the registry in their name; `asked` are the clients of a manifest.

    `faults` are what clients meet, by their address.
    """

    def __init__(self, address: str) -> None:
        self.asked: list[str] = []
        self.faults: dict[str, Fault] = {}
        self._blobs: dict[str, tuple[str, bytes]] = {}
        self._manifests: dict[str, str] = {}
        self._server = ThreadingHTTPServer((address, 0), self._handler())
        self.url = f"http://{address}:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: Mapping[str, Path]) -> None:
        """Have an image of one layer, by its name."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "image.tar"
            write_archive(path, name, (), files)
            with tarfile.open(path) as archive:

                def read(member: str) -> bytes:
                    file = archive.extractfile(member)
                    assert file
                    return file.read()

                (listed,) = json.loads(read("manifest.json"))
                described = self._keep(CONFIGURATION, read(listed["Config"]))
                layers = [self._keep(LAYER, read(layer)) for layer in listed["Layers"]]
        text = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described,
            "layers": layers,
        }
        kept = self._keep(MANIFEST, json.dumps(text).encode())
        repository, _, tag = name.partition("/")[2].rpartition(":")
        self._manifests[f"/v2/{repository}/manifests/{tag}"] = str(kept["digest"])

    def serve(self, *nodes: Host, registry: str = "registry.k8s.io") -> None:
        """Let nodes ask here for a registry's images; their containers run on."""
        for node in nodes:
            place = node.root / PLACE / registry
            place.mkdir(parents=True, exist_ok=True)
            (place / "hosts.toml").write_text(HOSTS.format(url=self.url))
            settings = node.root / "etc/containerd/config.toml"
            text = settings.read_text()
            if ASKS not in text:
                settings.write_text(text + ASKS)
                node.run("systemctl restart containerd").check()

    def _keep(self, kind: str, content: bytes) -> dict[str, str | int]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._blobs[digest] = (kind, content)
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def _find(self, path: str, client: str) -> tuple[str, str, bytes] | None:
        """Find what is at a path of the API: its digest, kind and content."""
        path = path.partition("?")[0]
        if "/manifests/" in path:
            self.asked.append(client)
        if self.faults.get(client) is Fault.KNOWS_NOTHING:
            return None
        digest = self._manifests.get(path, path.rpartition("/")[2])
        return (digest, *self._blobs[digest]) if digest in self._blobs else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            @override
            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def do_HEAD(self) -> None:
                self._answer(has_body=False)

            def do_GET(self) -> None:
                self._answer(has_body=True)

            def _answer(self, *, has_body: bool) -> None:
                client = self.client_address[0]
                found = registry._find(self.path, client)
                if found is None:
                    self.send_error(HTTPStatus.NOT_FOUND)
                    return
                digest, kind, content = found
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Docker-Content-Digest", digest)
                self.end_headers()
                if registry.faults.get(client) is Fault.BREAKS_OFF and kind == LAYER:
                    content = content[: len(content) // 2]
                if has_body:
                    self.wfile.write(content)

        return Handler
