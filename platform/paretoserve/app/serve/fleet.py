"""The ingress of an application whose gateways run outside of Ray.

Serve wants one deployment that all others belong to. This one takes no requests; nothing that
serves needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Fleet:
    """`handles` are the profile deployments, by profile name."""

    def __init__(self, handles: Mapping[str, Any]) -> None:
        self._handles = dict(handles)
