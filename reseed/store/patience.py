"""How long an S3 server is waited for, and what is said when it never answers."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Patience:
    """Seconds. Silence is the time without a byte in either direction, so a large file may take as long as it needs."""

    connect: float = 10
    silence: float = 20
    refused: float = 25  # nobody listens: a wrong address, most often
    total: float = 120  # no try begins that silence would end later than this


PATIENCE = Patience()


class NoAnswer(OSError):  # noqa: N818 - it is what happened
    """The server was asked until patience ended; says whom, for what, how long and how often. Must not be a TimeoutError,
    which s3fs would try again."""


def impatient_socket(silence: float, address: tuple[Any, ...]) -> socket.socket:
    """A socket that breaks when the peer takes no byte for so long: aiohttp watches what it reads, not what it writes."""
    family, kind, protocol = address[:3]
    made = socket.socket(family=family, type=kind, proto=protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence * 1000))
    return made
