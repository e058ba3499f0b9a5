"""Checks that any Engine must pass; needs no test framework.

subject = Subject(profile, create=lambda: MyEngine(...), create_broken=lambda: MyEngine(bad))
for check in CHECKS:
    await check(subject)  # raises Violation, which says what guarantee was not kept
"""

from paretoserve.executor.conformance.life import LIFE_CHECKS
from paretoserve.executor.conformance.limits import LIMIT_CHECKS
from paretoserve.executor.conformance.output import OUTPUT_CHECKS
from paretoserve.executor.conformance.probe import Check, Subject, Violation

CHECKS: tuple[Check, ...] = (*OUTPUT_CHECKS, *LIMIT_CHECKS, *LIFE_CHECKS)

__all__ = ["CHECKS", "Check", "Subject", "Violation"]
