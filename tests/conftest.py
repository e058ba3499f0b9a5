"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A shared machine can stop for longer than Hypothesis lets one example take.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
