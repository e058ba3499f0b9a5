"""`paretoserve executor`."""

from __future__ import annotations

from paretoserve.app.executor import add_arguments, run

__all__ = ["add_arguments", "run"]
