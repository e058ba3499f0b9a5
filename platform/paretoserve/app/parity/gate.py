"""A profile of a model that names a reference may serve only with a passing, current record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from paretoserve.app.config import ConfigError, load_deployment, load_profiles
from paretoserve.app.parity.digest import files_digest, settings_digest
from paretoserve.domain.deployment import Deployment, ProfileSet
from paretoserve.domain.model import Model
from paretoserve.domain.parity import Compared, Parity, ParityRecord, shortfalls
from paretoserve.domain.profile import Profile


def load_served(folder: Path, policy: Path | None = None) -> Deployment:
    """`load_deployment` of what may serve.

    Raises ConfigError for a folder that is not good and for profiles that may not serve.
    """
    deployment = load_deployment(folder, policy)
    if problems := parity_problems(folder, deployment):
        raise ConfigError("\n".join(problems))
    return deployment


def load_served_profiles(folder: Path) -> ProfileSet:
    """`load_profiles` of what may serve. Raises ConfigError as `load_served` does."""
    found = load_profiles(folder)
    if problems := parity_problems(folder, found):
        raise ConfigError("\n".join(problems))
    return found


def parity_problems(folder: Path, deployment: ProfileSet) -> list[str]:
    """A line for each profile that may not serve: why, and what to do."""
    return [
        problem
        for model in deployment.models
        if model.parity is not None
        for problem in _problems(folder, model, model.parity, deployment)
    ]


def parity_status(profile: Profile, deployment: ProfileSet) -> str:
    """What `check` says of a profile that may serve; empty where its model asks for nothing."""
    parity = deployment.model(profile.model).parity
    if parity is None:
        return ""
    if profile.name == parity.reference:
        return ", the reference"
    record = _record(profile, deployment)
    if profile.name in parity.unchecked or record is None:
        return f", not compared with {parity.reference}"
    return f", compared with {parity.reference} on {record.made}"


def compared(profile: Profile, model: Model) -> Compared:
    """One side of a record as it is now. Raises ConfigError for a model without weights here."""
    files = files_digest(Path(model.path))
    if not files:
        raise ConfigError(
            f"{model.path}: holds no *.safetensors; a record names the weights that were compared, "
            "so run this where they are"
        )
    return _side(profile, files)


def _side(profile: Profile, weights: str) -> Compared:
    return Compared(profile=profile.name, settings=settings_digest(profile), files=weights)


def _problems(folder: Path, model: Model, parity: Parity, deployment: ProfileSet) -> Iterator[str]:
    exempt = {parity.reference, *parity.unchecked}
    checked = [p for p in deployment.profiles if p.model == model.name and p.name not in exempt]
    if not checked:
        return
    try:
        files = files_digest(Path(model.path))
    except ConfigError as error:
        yield f"{folder / 'models.yaml'}: model {model.name}: {error}"
        return
    reference = _side(deployment.profile(parity.reference), files)
    for profile in checked:
        now = [_side(profile, files), reference]
        reasons = list(_reasons(_record(profile, deployment), parity, now))
        if reasons:
            yield _told(folder, profile, parity, "; ".join(reasons))


def _record(profile: Profile, deployment: ProfileSet) -> ParityRecord | None:
    for record in deployment.parity:
        if (record.model, record.profile.profile) == (profile.model, profile.name):
            return record
    return None


def _reasons(record: ParityRecord | None, parity: Parity, now: list[Compared]) -> Iterator[str]:
    """Why the record does not let its profile serve; nothing where it does."""
    if record is None:
        yield "it has no parity record"
        return
    if record.reference.profile != parity.reference:
        yield f"its record compares it with {record.reference.profile}"
    if record.source != "measured":
        yield f"its record is {record.source}, not measured"
    for then, side in zip((record.profile, record.reference), now, strict=True):
        if then.settings != side.settings:
            yield f"engine or engine_args of {side.profile} have changed since {record.made}"
    if now[0].files and record.profile.files != now[0].files:
        yield f"the model's files have changed since {record.made}"
    if record.tolerance.confidence < parity.tolerance.confidence:
        yield (
            f"its record has {record.tolerance.confidence:g} confidence, "
            f"models.yaml asks for {parity.tolerance.confidence:g}"
        )
    if short := shortfalls(record.figures, parity.tolerance):
        yield f"it did not pass on {record.made}: {'; '.join(short)}"


def _told(folder: Path, profile: Profile, parity: Parity, reason: str) -> str:
    return (
        f"{folder / 'profiles'}: profile {profile.name} may not serve: {reason}. "
        f"`paretoserve parity {folder} --profile {profile.name} --reference {parity.reference} "
        f"--tasks FILE` compares it; parity.unchecked in {folder / 'models.yaml'} lets it serve as "
        "it is"
    )
