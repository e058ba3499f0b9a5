"""Following a deployment folder: changed documents are taken over while the gateway runs.

The folder is looked at every second. What has changed is read when two more looks have found no
further change, as a whole, and only what is good as a whole is taken over, at once. Of what is not
the problems are logged, once, and the last good documents stay in force. docs/rollout.md says what
this does and does not guarantee.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from paretoserve.app.config import ConfigError, document_files
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import ParetoserveError
from paretoserve.policy.analysis import check_deployment, doubt_deployment
from paretoserve.telemetry.policy import InForce

logger = logging.getLogger(__name__)

EVERY_S = 1.0
QUIET_LOOKS = 2
"""Looks in a row that must find nothing changed before what has changed is read."""

Stamps = tuple[tuple[str, int, int, int, int], ...]
Contents = dict[str, str]


class Loaded(NamedTuple):
    """A deployment, the files that it was made of, what can be proved to be wrong with it, and what
    may be.

    `hash` is of what the documents say, wherever they lie.
    """

    deployment: Deployment
    contents: Contents
    hash: str
    problems: tuple[str, ...]
    doubts: tuple[str, ...]


class Unsettled(ConfigError):
    """The files changed while they were read."""


class Source:
    """A deployment folder, and how a deployment is made of it. Blocks on files."""

    def __init__(self, folder: Path, load: Callable[[], Deployment]) -> None:
        """`load` reads the folder; it raises ConfigError with one line for each problem."""
        self.folder = folder
        self._load = load

    def stamps(self) -> Stamps:
        """What changes when a file is written, replaced, added or removed. Cheap."""
        return tuple(_stamp(path) for path in document_files(self.folder))

    def contents(self) -> Contents:
        """A digest of each file, by its path in the folder."""
        files = document_files(self.folder)
        return {str(path.relative_to(self.folder)): _digest(path) for path in files}

    def read(self, contents: Contents | None = None) -> Loaded:
        """The deployment, of files that held `contents`, if given, and did not change meanwhile.

        Raises ConfigError for a bad one, Unsettled for files that do.
        """
        before = self.contents() if contents is None else contents
        try:
            deployment = self._load()
        finally:
            if self.contents() != before:
                raise Unsettled(f"{self.folder}: its files change while they are read; try again")
        problems = _told(deployment, check_deployment)
        doubts = _told(deployment, doubt_deployment)
        return Loaded(deployment, before, _hash(deployment), problems, doubts)


class Reloader:
    """Keeps a gateway to a source. All methods belong to one event loop."""

    def __init__(
        self,
        source: Source,
        loaded: Loaded,
        apply: Callable[[Deployment], None],
        *,
        on_failure: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`loaded` is in force already. `apply` puts another in force or raises ParetoserveError
        and changes nothing; `on_failure` is called for each that is refused.
        """
        self._source = source
        self._loaded = loaded
        self._apply = apply
        self._on_failure = on_failure
        self._clock = clock
        self._stamps: Stamps | None = None
        self._quiet = 0
        self._refused: Contents | None = None
        self._task: asyncio.Task[None] | None = None
        self.in_force = InForce(loaded.deployment.policy.version, loaded.hash, clock())
        for told in (*loaded.problems, *loaded.doubts):
            logger.warning("%s", told)

    def start(self) -> None:
        """Look at the folder from now on. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Idempotent. Nothing is taken over any more, from the call on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.look()
            except Exception:
                logger.exception("the deployment folder could not be looked at")

    async def look(self) -> None:
        """Look once: the task does it every EVERY_S."""
        stamps = await asyncio.to_thread(self._source.stamps)
        if stamps != self._stamps:
            self._stamps, self._quiet = stamps, 0
            return
        self._quiet += 1
        if self._quiet == QUIET_LOOKS:
            await self._settled()

    async def _settled(self) -> None:
        contents = await asyncio.to_thread(self._source.contents)
        if contents == self._loaded.contents:
            self._restored()
        elif contents != self._refused:
            await self._changed(contents)

    async def _changed(self, contents: Contents) -> None:
        try:
            loaded = await asyncio.to_thread(self._source.read, contents)
            self._check(loaded)
            self._apply(loaded.deployment)
        except Unsettled:
            self._stamps = None
        except (ConfigError, ParetoserveError) as error:
            self._refuse(contents, str(error).splitlines())
        except Exception as error:
            logger.exception("changed documents could not be taken over")
            self._refuse(contents, [f"internal error: {error!r}"])
        else:
            self._took_over(loaded)

    def _check(self, loaded: Loaded) -> None:
        """What is wrong already with what is in force keeps nothing from being changed."""
        new = [problem for problem in loaded.problems if problem not in self._loaded.problems]
        if new:
            raise ConfigError("\n".join(new))

    def _refuse(self, contents: Contents, problems: list[str]) -> None:
        self._refused = contents
        self.in_force = self.in_force._replace(problems=tuple(problems))
        if self._on_failure is not None:
            self._on_failure()
        for problem in problems:
            logger.error("%s", problem)
        logger.error("changed documents refused; policy %s stays in force", self.in_force.version)

    def _restored(self) -> None:
        if self._refused is not None:
            self._refused = None
            self.in_force = self.in_force._replace(problems=())
            logger.info("the documents are those in force again")

    def _took_over(self, loaded: Loaded) -> None:
        before, self._loaded, self._refused = self._loaded, loaded, None
        version = loaded.deployment.policy.version
        self.in_force = InForce(version, loaded.hash, self._clock())
        changed = sorted(dict(before.contents.items() ^ loaded.contents.items()))
        logger.info("policy %s (%s) in force: changed %s", version, loaded.hash, ", ".join(changed))
        for doubt in loaded.doubts:
            if doubt not in before.doubts:
                logger.warning("%s", doubt)
        if _same_version(before.deployment, loaded.deployment):
            logger.warning(
                "decisions change and policy.yaml still says version %s: those before and after "
                "cannot be told apart by it",
                version,
            )


def _same_version(before: Deployment, after: Deployment) -> bool:
    def decides(deployment: Deployment) -> tuple[object, ...]:
        return deployment.policy, deployment.tiers, deployment.profiles

    return before.policy.version == after.policy.version and decides(before) != decides(after)


def _hash(deployment: Deployment) -> str:
    text = deployment.model_dump_json(exclude={"models": {"__all__": {"path"}}})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _told(deployment: Deployment, check: Callable[[Deployment], list[str]]) -> tuple[str, ...]:
    """What a check says; of the candidate only what it does not say of the policy too."""
    of_policy, of_candidate = check(deployment), list[str]()
    if deployment.candidate is not None:
        other = deployment.model_copy(update={"policy": deployment.candidate})
        of_candidate = [said for said in check(other) if said not in of_policy]
    return (
        *(f"policy.yaml: {said}" for said in of_policy),
        *(f"policy.next.yaml: {said}" for said in of_candidate),
    )


def _stamp(path: Path) -> tuple[str, int, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0, 0
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"cannot be read: {error}"
