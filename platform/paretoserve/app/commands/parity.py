"""`paretoserve parity DEPLOYMENT --profile X --reference Y --tasks FILE`."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import sys
from pathlib import Path

from paretoserve import __version__
from paretoserve.app.config import ConfigError, load_deployment, read_document
from paretoserve.app.option_types import several
from paretoserve.app.parity import report
from paretoserve.app.parity.digest import text_digest
from paretoserve.app.parity.gate import compared
from paretoserve.app.parity.sides import serving
from paretoserve.app.profile_address import profile_at
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.document import Document
from paretoserve.domain.model import Model
from paretoserve.domain.parity import ParityRecord, Score, TaskFile, Tolerance, shortfalls
from paretoserve.domain.profile import Profile
from paretoserve.executor.tokenizer import Tokenizer
from paretoserve.parity.compare import compare
from paretoserve.parity.observe import Ask, Progress, Said, observe
from paretoserve.parity.tasks import Prepared, Task, prepare, read_tasks

NOT_PASSED = 2
"""Exit status of a comparison that was made and not passed."""
MOST_AT_ONCE = 64


class _Scores(Document):
    scores: tuple[Score, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("deployment", type=Path, help="the deployment folder")
    add("--profile", required=True, metavar="NAME", help="the profile that is to serve")
    add("--reference", metavar="NAME", help="default: the reference that models.yaml names")
    add("--tasks", type=Path, required=True, metavar="FILE", help="JSON lines; see docs/parity.md")
    add("--scores", type=Path, metavar="FILE", help="YAML with task scores of an evaluation")
    add("--samples", type=several, default=200, metavar="N", help="of each prompt; default: 200")
    add("--sample-tokens", type=several, default=4, metavar="N", help="of each sample; default: 4")
    add(
        "--executor",
        action="append",
        default=[],
        metavar="PROFILE=HOST:PORT",
        help="an executor that runs already; others are started here, one after the other",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: parity/NAME.yaml in the deployment folder",
    )


def run(options: argparse.Namespace) -> int:
    """Compare, show and record; 2 for a profile that does not pass.

    Raises ConfigError for documents, tasks or options that are not good, and ParetoserveError for
    an executor that does not start or fails.
    """
    deployment = load_deployment(options.deployment)
    profile = _profile(deployment, options.profile, "--profile")
    model = deployment.model(profile.model)
    reference = _reference(deployment, model, profile, options.reference)
    text, tasks = _tasks(options.tasks)
    scores = read_document(options.scores, _Scores).scores if options.scores else ()
    tolerance = model.parity.tolerance if model.parity else Tolerance()
    tokenizer = Tokenizer.load(model.path)
    prepared = prepare(tasks, tokenizer)
    sides = [compared(side, model) for side in (reference, profile)]
    found = (profile_at("--executor", given, deployment) for given in options.executor)
    addresses = {name: str(at) for name, at in found}
    if unused := addresses.keys() - {profile.name, reference.name}:
        raise ConfigError(f"--executor: {', '.join(sorted(unused))} is not one of the two compared")
    said, devices = asyncio.run(_ask(options, (reference, profile), prepared, addresses))
    _tell("comparing")
    figures = compare(
        prepared,
        said[1],
        said[0],
        decode=tokenizer.decode,
        confidence=tolerance.confidence,
        scores=scores,
    )
    short = shortfalls(figures, tolerance)
    record = ParityRecord(
        model=model.name,
        profile=sides[1].model_copy(update={"device": devices[1]}),
        reference=sides[0].model_copy(update={"device": devices[0]}),
        source="measured",
        made=datetime.datetime.now(datetime.UTC).date(),
        version=__version__,
        tasks=TaskFile(file=options.tasks.name, digest=text_digest(text), count=len(tasks)),
        tolerance=tolerance,
        figures=figures,
        result="fail" if short else "pass",
        shortfalls=tuple(short),
    )
    path = options.out or options.deployment / "parity" / f"{profile.name}.yaml"
    report.write(record, path)
    print("\n".join(report.lines(record)))
    print(f"Wrote {path}.")
    return NOT_PASSED if short else 0


async def _ask(
    options: argparse.Namespace,
    profiles: tuple[Profile, Profile],
    prepared: list[Prepared],
    addresses: dict[str, str],
) -> tuple[list[Said], list[str]]:
    """What each said, and on what; one executor after the other, as one machine may hold only one."""
    said, devices = [], []
    logprobs = all(profile.capabilities.logprobs for profile in profiles)
    for side, profile in enumerate(profiles):
        _tell(f"{profile.name}: starting" if profile.name not in addresses else profile.name)
        ask = Ask(
            side=side,
            concurrency=min(profile.limits.max_batch, MOST_AT_ONCE),
            samples=options.samples,
            sample_tokens=options.sample_tokens,
            logprobs=logprobs,
            seeded=profile.capabilities.seed,
        )
        async with serving(options.deployment, profile, addresses.get(profile.name)) as executor:
            said.append(await observe(executor.generate, prepared, ask, _progress(profile.name)))
            devices.append(executor.device)
    return said, devices


def _profile(deployment: Deployment, name: str, option: str) -> Profile:
    try:
        return deployment.profile(name)
    except KeyError:
        known = ", ".join(profile.name for profile in deployment.profiles)
        raise ConfigError(f"{option}: no profile {name!r}; known are {known}") from None


def _reference(
    deployment: Deployment, model: Model, profile: Profile, given: str | None
) -> Profile:
    name = given or (model.parity.reference if model.parity else None)
    if name is None:
        raise ConfigError(f"--reference: give one; models.yaml names none for model {model.name}")
    reference = _profile(deployment, name, "--reference")
    if reference.name == profile.name:
        raise ConfigError(f"--reference: {name} would be compared with itself")
    if reference.model != profile.model:
        raise ConfigError(
            f"--reference: {name} is of model {reference.model}, {profile.name} of {profile.model}"
        )
    return reference


def _tasks(path: Path) -> tuple[str, tuple[Task, ...]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, read_tasks(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--tasks {path}: cannot be read: {error}") from None
    except ValueError as error:
        raise ConfigError(
            "\n".join(f"{path}: {line}" for line in str(error).splitlines())
        ) from None


def _progress(name: str) -> Progress:
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        tenths = 10 * done // total
        if tenths > told:
            told = tenths
            _tell(f"{name}: {done:,} of {total:,} requests")

    return progress


def _tell(line: str) -> None:
    print(f"==> {line}", file=sys.stderr, flush=True)
