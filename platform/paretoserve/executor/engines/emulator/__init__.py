"""An engine without weights: plays tokens at the pace of its profile's latency curve."""

from paretoserve.executor.engines.emulator.engine import EmulatorEngine

__all__ = ["EmulatorEngine"]
