"""Reading what `paretoserve simulate` is given. Everything wrong is a ConfigError."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from paretoserve.app.config import ConfigError, load_deployment, parse_document
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.document import Document
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.tier import Tier
from paretoserve.policy.analysis import check_deployment
from paretoserve.sim.logged import clients_of, requests_of
from paretoserve.sim.plan import Client, Plan
from paretoserve.sim.traces import TraceError, TraceRequest, read
from paretoserve.telemetry.decision_codec import SchemaError
from paretoserve.telemetry.decision_files import log_files
from paretoserve.telemetry.decision_reader import DecisionLogReader

D = TypeVar("D", bound=Document)
RANGE = re.compile(r"x?([\d.]+)\.\.x?([\d.]+)")
MOST_LOADS = 50


def read_deployment(folder: Path, tiers: Path | None) -> Deployment:
    """A deployment folder; `tiers` is a folder whose tiers take the place of its own."""
    deployment = load_deployment(folder)
    if tiers is None:
        return deployment
    paths = sorted(tiers.glob("*.yaml"))
    if not paths:
        raise ConfigError(f"{tiers}: holds no *.yaml file; at least one Tier is needed")
    found = [read_document(path, Tier) for path in paths]
    parts: dict[str, Any] = {name: getattr(deployment, name) for name in Deployment.model_fields}
    try:
        return Deployment(**{**parts, "tiers": tuple(found)})
    except ValidationError as error:
        raise ConfigError(f"{tiers}: {error.errors()[0]['msg']}") from None


def read_traffic(
    folder: Path,
    deployment: Deployment,
    *,
    trace: Path | None = None,
    compress: float | None = None,
    duration_s: float | None = None,
) -> tuple[Plan, Path, list[TraceRequest]]:
    """The folder's workload.yaml with what the command line says in its place, its trace, and the
    requests of that. A decision log for a trace says whose its requests are, and needs no
    workload.yaml.
    """
    rows = read_log(trace, deployment) if trace is not None and is_log(trace) else None
    clients = clients_of(rows) if rows is not None else None
    plan, path = read_plan(
        folder, deployment, trace=trace, compress=compress, duration_s=duration_s, clients=clients
    )
    return plan, path, read_rows(path) if rows is None else rows


def read_plan(
    folder: Path,
    deployment: Deployment,
    *,
    trace: Path | None = None,
    compress: float | None = None,
    duration_s: float | None = None,
    clients: tuple[Client, ...] | None = None,
) -> tuple[Plan, Path]:
    """The plan and its trace; `clients`, where they are known, take the place of its own."""
    path = folder / "workload.yaml"
    changed: dict[str, Any] = {}
    if clients is not None:
        changed |= {"clients": clients, "compress": 1.0}
    if compress is not None:
        changed["compress"] = compress
    plan = _plan(path, clients)
    if duration_s is not None:
        changed["duration_s"] = duration_s
        changed["warmup_s"] = min(plan.warmup_s, duration_s / 10)
    plan = plan.model_copy(update=changed)
    try:
        plan.check(deployment)
    except ValueError as error:
        raise ConfigError(f"{path if clients is None else trace}: {error}") from None
    return plan, trace if trace is not None else (path.parent / plan.trace).resolve()


def _plan(path: Path, clients: tuple[Client, ...] | None) -> Plan:
    if path.is_file():
        return read_document(path, Plan)
    if clients is not None:
        return Plan(trace="log", clients=clients)
    raise ConfigError(
        f"{path}: is missing; it says which trace is played, and which tenants and tiers its "
        "requests are of (docs/simulator.md, The traffic). Only a decision log, given as --trace, "
        "says so itself"
    )


def read_rows(path: Path) -> list[TraceRequest]:
    """The requests of a trace."""
    try:
        return read(path)
    except TraceError as error:
        raise ConfigError(str(error)) from None


def is_log(path: Path) -> bool:
    """Whether it is a decision log: a folder that holds one, or a file of its rows."""
    if path.is_dir():
        return bool(log_files(path))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            first = json.loads(file.readline())
    except (OSError, EOFError, ValueError):
        return False
    return isinstance(first, dict) and {"v", "request", "candidates"} <= first.keys()


def read_log(path: Path, deployment: Deployment) -> list[TraceRequest]:
    """The requests of a decision log."""
    model = deployment.profiles[0].model
    try:
        rows = DecisionLogReader(path)
        return requests_of(rows, deployment.tenants, deployment.tiers, model)
    except (OSError, EOFError, SchemaError, TraceError) as error:
        raise ConfigError(f"{path}: {error}") from None


def read_policies(paths: list[Path], deployment: Deployment) -> dict[str, PolicyDocument]:
    """Policy documents by the name that the report gives them: their version, or their path where
    two have the same. Without paths the deployment's own. Rules must fit the deployment as for
    `policy check`; that a tier cannot be served in time is for the simulation to show.
    """
    if not paths:
        _check_rules("policy.yaml", deployment.policy, deployment)
        return {deployment.policy.version: deployment.policy}
    documents = [(path, read_document(path, PolicyDocument)) for path in paths]
    versions = [document.version for _, document in documents]
    if len({*paths}) != len(paths):
        raise ConfigError("--policy: the same file is given twice")
    for path, document in documents:
        _check_rules(str(path), document, deployment)
    return {
        document.version if versions.count(document.version) == 1 else str(path): document
        for path, document in documents
    }


def _check_rules(where: str, document: PolicyDocument, deployment: Deployment) -> None:
    plain = document.model_copy(update={"rules": ()})
    known = check_deployment(deployment.model_copy(update={"policy": plain}))
    found = check_deployment(deployment.model_copy(update={"policy": document}))
    if problems := [f"{where}: {problem}" for problem in found if problem not in known]:
        raise ConfigError("\n".join(problems))


def check_telemetry(telemetry_s: float, policies: Mapping[str, PolicyDocument]) -> None:
    """Raise ConfigError where replicas would report less often than a policy believes them."""
    for name, document in policies.items():
        if telemetry_s >= document.max_state_age_s:
            raise ConfigError(
                f"--telemetry-s {telemetry_s:g}: policy {name} believes no state that is older than "
                f"{document.max_state_age_s:g} s (max_state_age_s), and would see no replica for "
                "most of the time"
            )


def read_fleet(text: str, deployment: Deployment) -> dict[str, int]:
    """`PROFILE=REPLICAS,...`, or the path of a YAML file that maps profiles to replicas."""
    entries = _fleet_entries(text)
    known = [profile.name for profile in deployment.profiles]
    fleet: dict[str, int] = {}
    for profile, count in entries:
        if profile not in known:
            raise ConfigError(
                f"--fleet: there is no profile {profile!r}; profiles are {', '.join(known)}"
            )
        if profile in fleet:
            raise ConfigError(f"--fleet: profile {profile} is given twice")
        if not re.fullmatch(r"\d+", count) or int(count) == 0:
            raise ConfigError(f"--fleet: {profile}={count}: replicas are a whole number above 0")
        fleet[profile] = int(count)
    if not fleet:
        raise ConfigError("--fleet: names no replica; write PROFILE=REPLICAS,PROFILE=REPLICAS")
    return fleet


def _fleet_entries(text: str) -> list[tuple[str, str]]:
    if "=" in text:
        parts = (part.strip().partition("=") for part in text.split(","))
        return [(profile, count) for profile, _, count in parts]
    try:
        found = yaml.safe_load(Path(text).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"--fleet {text!r}: neither PROFILE=REPLICAS,... nor a file that can be read: {error}"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(f"--fleet {text}: must map profiles to numbers of replicas")
    return [(str(profile), str(count)) for profile, count in found.items()]


def read_loads(text: str) -> list[float]:
    """`0.5,1,2`, or `x0.5..x4` for doublings from the first to the second, itself included."""
    span = RANGE.fullmatch(text.strip())
    if span:
        low, high = (_load(part, text) for part in span.groups())
        if low > high:
            raise ConfigError(f"--load {text}: the first load is above the second")
        loads = [low * 2**step for step in range(MOST_LOADS) if low * 2**step < high * (1 - 1e-9)]
        return [*loads, high]
    loads = [_load(part.strip().removeprefix("x"), text) for part in text.split(",")]
    return sorted(dict.fromkeys(loads))


def _load(text: str, whole: str) -> float:
    try:
        load = float(text)
    except ValueError:
        load = math.nan
    if not 0 < load < math.inf:
        raise ConfigError(
            f"--load {whole}: {text!r} is no load; write numbers above 0, 1,2,4 or x0.5..x4"
        )
    return load


def read_document(path: Path, kind: type[D]) -> D:
    """One YAML document."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse_document(path, text, kind)
