"""How long to wait for an S3 server, and the error when it never answers."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Patience:
    """Limits in seconds. Silence is time without a byte in either direction, so a large file may take as long as it needs."""

    connect: float = 10
    silence: float = 20
    refused: float = 25  # nobody listens, most often because the address is wrong
    total: float = 120  # no try begins that could end later than this in silence


PATIENCE = Patience()


class NoAnswer(OSError):  # noqa: N818 - it is what happened
    """The server was asked in vain until patience ended. Not a TimeoutError, which s3fs would retry."""


def impatient_socket(silence: float, address: tuple[Any, ...]) -> socket.socket:
    """A socket that breaks when the peer accepts no byte for so long: aiohttp times out reads only, not writes."""
    family, kind, protocol = address[:3]
    made = socket.socket(family=family, type=kind, proto=protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence * 1000))
    return made
