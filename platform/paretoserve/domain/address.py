"""HOST:PORT, as command lines and documents have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Address:
    """A host, name or number, without the brackets that an IPv6 number has before a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, lowest: int = 0) -> Self:
        """Port 0 means any free one; where that has no meaning `lowest` is 1.

        Raises ValueError, saying what would be right.
        """
        host, _, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if bracketed else host
        good_host = bare and bracketed == (":" in bare) and not set("[]/@ ") & set(bare)
        good_port = port.isascii() and port.isdecimal() and lowest <= int(port) < 2**16
        if not good_host or not good_port:
            raise ValueError(
                f"it must be HOST:PORT, the port {lowest} to 65535, an IPv6 address in brackets"
            )
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
