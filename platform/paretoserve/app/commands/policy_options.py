"""What `policy evaluate` and `policy diff` share: the log, the deployment, policies to compare."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from paretoserve.app.config import ConfigError, parse_document
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.policy import PolicyDocument
from paretoserve.policy.policy import Policy
from paretoserve.telemetry.decision_codec import SchemaError
from paretoserve.telemetry.decision_reader import DecisionLogReader
from paretoserve.telemetry.decision_row import DecisionRow


def add_deployment_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deployment", type=Path, required=True, metavar="DIR", help="tiers, profiles and tenants"
    )


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """--log, --version, --deployment, --serving."""
    add_deployment_argument(parser)
    parser.add_argument(
        "--log", type=Path, required=True, metavar="PATH", help="a decision log: folder or file"
    )
    parser.add_argument("--version", help="use only rows decided by this policy version")
    parser.add_argument(
        "--serving",
        type=Path,
        metavar="POLICY",
        help="the policy that wrote the log (default: the deployment's)",
    )


def load_policy(path: Path, deployment: Deployment) -> Policy:
    """The policy of one document over the deployment's tiers and profiles. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    document = parse_document(path, text, PolicyDocument)
    try:
        return Policy(document, deployment.tiers, deployment.profiles)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


class LoggedRows:
    """The rows of a log, of one policy version where that is asked for."""

    def __init__(self, path: Path, version: str | None = None) -> None:
        """Raises ConfigError where there is no log."""
        try:
            self._reader = DecisionLogReader(path)
        except FileNotFoundError as error:
            raise ConfigError(str(error)) from None
        self._version = version

    @property
    def skipped(self) -> int:
        """Torn lines met so far."""
        return self._reader.skipped

    def __iter__(self) -> Iterator[DecisionRow]:
        """Raises ConfigError for a file that cannot be read, or is of another schema."""
        try:
            for row in self._reader:
                if self._version in (None, row.decision.policy_version):
                    yield row
        except (OSError, EOFError, SchemaError) as error:
            raise ConfigError(str(error)) from None
