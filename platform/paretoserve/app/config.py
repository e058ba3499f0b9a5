"""Reading a deployment folder: the only reader of an operator's files.

DIR/models.yaml         models: [{name, path, context_tokens}]; a path is relative to DIR
DIR/profiles/*.yaml     one profile each
DIR/tiers/*.yaml        one tier each
DIR/tenants/*.yaml      one tenant each
DIR/policy.yaml         the routing policy
DIR/policy.next.yaml    a candidate for it, if there is one
DIR/rollout.yaml        how the candidate is tried, if it is
DIR/parity/*.yaml       the parity record of one profile each, where there are any
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from paretoserve.domain.deployment import Deployment, ProfileSet
from paretoserve.domain.document import Document
from paretoserve.domain.model import Model
from paretoserve.domain.parity import ParityRecord
from paretoserve.domain.policy import PolicyDocument
from paretoserve.domain.profile import Profile
from paretoserve.domain.rollout import Rollout
from paretoserve.domain.tenant import Tenant
from paretoserve.domain.tier import Tier
from paretoserve.policy.directives import InvalidRules, compile_rules

D = TypeVar("D", bound=Document)
P = TypeVar("P", bound=ProfileSet)


class ConfigError(Exception):
    """What is wrong in a deployment folder: each line names file, field and what would be right."""


class _Models(Document):
    models: tuple[Model, ...]


def load_deployment(folder: Path, policy: Path | None = None) -> Deployment:
    """Read and check a deployment folder, or it with another `policy` document and no candidate.

    Raises ConfigError with one line for every problem found, not only the first.
    """
    problems: list[str] = []
    parts = _profile_parts(folder, problems)
    document = _policy(policy or folder / "policy.yaml", problems)
    candidate, rollout = (None, None) if policy else _candidate(folder, problems)
    parts |= {
        "tiers": tuple(_documents(folder / "tiers", Tier, problems)),
        "tenants": tuple(_documents(folder / "tenants", Tenant, problems)),
        "policy": document,
        "candidate": candidate,
        "rollout": rollout,
    }
    return _whole(folder, Deployment, parts, problems)


def load_profiles(folder: Path) -> ProfileSet:
    """Read and check what executors need of a deployment folder: the rest may be absent or wrong.

    Raises ConfigError as `load_deployment` does.
    """
    problems: list[str] = []
    return _whole(folder, ProfileSet, _profile_parts(folder, problems), problems)


def read_document(path: Path, kind: type[D]) -> D:
    """Read and check one YAML file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        what = kind.__name__.strip("_")
        raise ConfigError(f"{path}: missing; it must hold a {what} document") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse_document(path, text, kind)


def document_files(folder: Path) -> list[Path]:
    """The files that `load_deployment` looks for in a folder as it is now."""
    names = ("models.yaml", "policy.yaml", "policy.next.yaml", "rollout.yaml")
    many = (sorted((folder / name).glob("*.yaml")) for name in ("profiles", "tiers", "tenants"))
    return [
        *(folder / name for name in names),
        *itertools.chain.from_iterable(many),
        *_records(folder),
    ]


def read_yaml(path: Path) -> Any:
    """What a YAML file says, unchecked. Raises ConfigError for one that cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506 (a SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from None


def parse_document(path: Path, text: str, kind: type[D]) -> D:
    """Check one YAML text; `path` is only named in messages. Raises ConfigError."""
    try:
        content = yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)
        return kind.model_validate({} if content is None else content)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, kind, error))) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from None


def _profile_parts(folder: Path, problems: list[str]) -> dict[str, Any]:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: not a folder; give the path of a deployment folder")
    models = _document(folder / "models.yaml", _Models, problems)
    records = (_document(path, ParityRecord, problems) for path in _records(folder))
    return {
        "models": tuple(_located(model, folder) for model in (models.models if models else ())),
        "profiles": tuple(_documents(folder / "profiles", Profile, problems)),
        "parity": tuple(filter(None, records)),
    }


def _whole(folder: Path, kind: type[P], parts: dict[str, Any], problems: list[str]) -> P:
    if problems:
        raise ConfigError("\n".join(problems))
    try:
        return kind(**parts)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(folder, kind, error))) from None


def _records(folder: Path) -> list[Path]:
    return sorted((folder / "parity").glob("*.yaml"))


def _policy(path: Path, problems: list[str]) -> PolicyDocument | None:
    document = _document(path, PolicyDocument, problems)
    try:
        compile_rules(document.rules if document else ())
    except InvalidRules as error:
        problems.extend(f"{path}: {line}" for line in str(error).splitlines())
    return document


def _candidate(folder: Path, problems: list[str]) -> tuple[PolicyDocument | None, Rollout | None]:
    policy, rollout = folder / "policy.next.yaml", folder / "rollout.yaml"
    return (
        _policy(policy, problems) if policy.exists() else None,
        _document(rollout, Rollout, problems) if rollout.exists() else None,
    )


def _located(model: Model, folder: Path) -> Model:
    return model.model_copy(update={"path": str((folder / model.path).resolve())})


def _documents(folder: Path, kind: type[D], problems: list[str]) -> Iterator[D]:
    files = sorted(folder.glob("*.yaml"))
    if not files:
        problems.append(f"{folder}: holds no *.yaml file; at least one {kind.__name__} is needed")
    for path in files:
        document = _document(path, kind, problems)
        if document is not None:
            yield document


def _document(path: Path, kind: type[D], problems: list[str]) -> D | None:
    try:
        return read_document(path, kind)
    except ConfigError as error:
        problems.append(str(error))
    return None


def _explain(path: Path, kind: type[BaseModel], error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        field = ".".join(str(part) for part in location) or "(document)"
        if problem["type"] == "extra_forbidden":
            yield f"{path}: {field}: unknown key{_nearest(kind, location)}"
        elif problem["type"] == "missing":
            yield f"{path}: {field}: missing"
        else:
            got = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
            message = problem["msg"].removeprefix("Value error, ")
            yield f"{path}: {field}: {message}{got[:120]}"


def _nearest(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """` (did you mean ...)` from the keys of the model in which `location`'s last part stands."""
    model: type[BaseModel] | None = kind
    for part in location[:-1]:
        if isinstance(part, str) and model is not None and part in model.model_fields:
            model = _model_of(model.model_fields[part].annotation)
    if model is None:
        return ""
    names = list(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys are {', '.join(names)}"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The document class inside an annotation such as tuple[CurvePoint, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_of(argument)
        if found is not None:
            return found
    return None


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(  # what Helm writes for a small number; YAML 1.2 has it so
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
