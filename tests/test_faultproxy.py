"""The proxy that injects faults leaves nothing open when the server behind it breaks a connection."""

from __future__ import annotations

import http.client
import socket
import struct
import threading

import pytest

from tests.tools.faultproxy import FaultProxy

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""``SO_LINGER`` of no seconds: closing resets the connection."""
BODY = bytes(8 << 20)
"""More than fits into the buffers of a connection."""


def test_a_connection_that_the_server_breaks_is_closed() -> None:
    """Otherwise its socket is found open later, in the middle of another test, which fails for it."""

    def reset() -> None:
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=reset)
        thread.start()
        with FaultProxy(f"http://127.0.0.1:{server.getsockname()[1]}") as proxy:
            asked = http.client.HTTPConnection("127.0.0.1", int(proxy.endpoint_url.rpartition(":")[2]), 20)
            asked.request("PUT", "/bucket/object", BODY)
            with pytest.raises(http.client.RemoteDisconnected):
                asked.getresponse()
            asked.close()
        thread.join()
