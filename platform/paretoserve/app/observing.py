"""What a gateway is observed with, as its settings ask: telemetry and the decision log."""

from __future__ import annotations

import asyncio

from paretoserve.gateway.decision_log import DecisionLogObserver
from paretoserve.gateway.observer import Observer, Observers
from paretoserve.gateway.telemetry import TelemetryObserver
from paretoserve.policy.protocols import Decides
from paretoserve.telemetry import TelemetrySettings, start
from paretoserve.telemetry.decision_log import DecisionLog
from paretoserve.telemetry.decision_memory import DecisionMemory


class Observing:
    """`telemetry` is None when it is off."""

    def __init__(self, settings: TelemetrySettings, gateway_id: str, policy: Decides) -> None:
        """Raises OSError for a folder of the decision log that cannot be written to."""
        self._log: DecisionLog | None = None
        self._memory: DecisionMemory | None = None
        observers: list[Observer] = []
        if not settings.decision_log.off:
            self._log = DecisionLog(settings.decision_log, gateway_id)
            self._memory = DecisionMemory(policy)
            observers.append(DecisionLogObserver(self._log, self._memory, gateway_id))
        self.telemetry = start(settings, "gateway")
        if self.telemetry is not None:
            observers.insert(0, TelemetryObserver(self.telemetry))
        self.observer = Observers(observers) if observers else None

    def follow(self, policy: Decides) -> Decides:
        """What the router is to ask in the place of `policy`, from now on."""
        return policy if self._memory is None else self._memory.follow(policy)

    async def close(self) -> None:
        """Send and write what is pending."""
        for part in (self.telemetry, self._log):
            if part is not None:
                await asyncio.to_thread(part.close)
