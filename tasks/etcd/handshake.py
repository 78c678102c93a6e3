"""Why etcd drops a connection that it had accepted: the alert that a request would hide.

With TLS 1.3 a server judges the client's certificate after the client's handshake has ended. By
then the request is on its way, and etcd, which closes without reading it, resets the connection:
of 30 tries with a rejected certificate, 29 saw only "connection reset by peer". A handshake that
sends nothing afterwards always gets the alert.
"""

from __future__ import annotations

import asyncio
import ssl

ALERT_SECONDS = 1.0


async def find_alert(host: str, port: int, server_name: str, tls: ssl.SSLContext) -> OSError | None:
    """Shake hands, send nothing, and return what etcd or TLS objects to; None when nothing.

    Takes up to ALERT_SECONDS when there is no objection, because then nothing ever comes.
    """
    try:
        async with asyncio.timeout(ALERT_SECONDS):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=tls, server_hostname=server_name
            )
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()
    except TimeoutError:
        return None
    except OSError as error:  # ssl.SSLError is one
        return error
    return None


async def is_accepted(
    host: str, port: int, server_name: str, tls: ssl.SSLContext, timeout_seconds: float = 5.0
) -> bool:
    """Whether an etcd lets a client with this certificate in; /version is asked, which all serve.

    A certificate of an authority that the running etcd has not loaded is rejected after the
    handshake, so only an answer counts. Raises ssl.SSLCertVerificationError when it is we who
    reject the server, and OSError (TimeoutError too) when nothing can be connected.
    """
    async with asyncio.timeout(timeout_seconds):
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 16)
        try:
            await writer.start_tls(tls, server_hostname=server_name)
            writer.write(f"GET /version HTTP/1.0\r\nHost: {server_name}\r\n\r\n".encode())
            return (await reader.read(8)).startswith(b"HTTP/1")
        except ssl.SSLCertVerificationError:
            raise
        except (ssl.SSLError, ConnectionError):
            return False
        finally:
            writer.transport.abort()
