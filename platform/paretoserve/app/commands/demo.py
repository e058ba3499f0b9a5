"""`paretoserve demo`."""

from __future__ import annotations

from paretoserve.app.demo.run import add_arguments, run

__all__ = ["add_arguments", "run"]
