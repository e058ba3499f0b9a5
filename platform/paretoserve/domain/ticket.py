"""Ticket: a decision made binding."""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a request reserved, where, and until when it must have started.

    Times are seconds on the clock of the router that signs it. `prompt_tokens` and
    `max_tokens` bound the KV tokens it may hold, `gpu_seconds` is what the ledger set aside.
    `tpot_ms` is the TPOT that its replica must not be filled beyond, by the profile's curve, for it
    to get what it is promised; `guest` says
    that a cheaper profile could have served it. The router that signs a ticket also uses it:
    nothing outside checks one yet.
    """

    request_id: str
    tenant: str
    tier: str
    profile: str
    replica_id: str
    prompt_tokens: int
    max_tokens: int
    gpu_seconds: float
    expires_at: float
    tpot_ms: float = math.inf
    guest: bool = False
    signature: str = ""

    def payload(self) -> bytes:
        """The bytes that are signed: every field but the signature, length-prefixed."""
        fields = (
            self.request_id, self.tenant, self.tier, self.profile, self.replica_id,
            str(self.prompt_tokens), str(self.max_tokens), repr(self.gpu_seconds),
            repr(self.expires_at), repr(self.tpot_ms), str(self.guest),
        )  # fmt: skip
        return b"".join(len(f.encode()).to_bytes(4, "big") + f.encode() for f in fields)

    def signed_by(self, key: bytes) -> str:
        """HMAC-SHA256 of the payload, hex."""
        return hmac.new(key, self.payload(), hashlib.sha256).hexdigest()

    def valid(self, key: bytes, now: float) -> bool:
        """Whether `key` signed exactly these fields and the ticket has not expired."""
        genuine = hmac.compare_digest(self.signature, self.signed_by(key))
        return genuine and now <= self.expires_at
