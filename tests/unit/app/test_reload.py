"""Following a deployment folder: what is taken over, when, and what is refused. No time passes:
a look is a call.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from paretoserve.app.config import ConfigError, load_deployment
from paretoserve.app.reload import QUIET_LOOKS, Reloader, Source, Unsettled
from paretoserve.domain.deployment import Deployment
from paretoserve.domain.errors import EngineError

LOCAL = Path(__file__).parents[3] / "deployments" / "local"
VERSION = "version: local-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "d"
    shutil.copytree(LOCAL, target, ignore=shutil.ignore_patterns("models", "demo"))
    return target


class Followed:
    """A reloader, and what came of it."""

    def __init__(self, folder: Path, load: Callable[[], Deployment] | None = None) -> None:
        self.folder = folder
        self.applied: list[Deployment] = []
        self.unacceptable: str | None = None
        self.failures = 0
        source = Source(folder, load or partial(load_deployment, folder))
        self.reloader = Reloader(
            source, source.read(), self.apply, on_failure=self.count, clock=lambda: 77.0
        )

    def apply(self, deployment: Deployment) -> None:
        if self.unacceptable is not None:
            raise EngineError(self.unacceptable)
        self.applied.append(deployment)

    def count(self) -> None:
        self.failures += 1

    async def settle(self) -> None:
        """Look as often as it takes to see that nothing changes any more."""
        for _ in range(QUIET_LOOKS + 1):
            await self.reloader.look()

    @property
    def said(self) -> str:
        return "\n".join(self.reloader.in_force.problems)


@pytest.fixture
async def followed(folder: Path) -> Followed:
    followed = Followed(folder)
    await followed.settle()
    return followed


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def test_nothing_happens_while_nothing_changes(followed: Followed) -> None:
    before = followed.reloader.in_force
    await followed.settle()
    (followed.folder / "notes.txt").write_text("not a document")
    os.utime(followed.folder / "policy.yaml")  # touched, and the same
    await followed.settle()
    assert (followed.applied, followed.reloader.in_force) == ([], before)
    assert (before.version, before.problems) == ("local-1", ())


async def test_a_change_is_taken_over_as_a_whole_once_it_has_settled(followed: Followed) -> None:
    before = followed.reloader.in_force
    edit(followed.folder / "policy.yaml", VERSION, "version: local-2")
    edit(followed.folder / "tiers/premium.yaml", "ttft_ms: 400", "ttft_ms: 300")
    for _ in range(QUIET_LOOKS):
        await followed.reloader.look()
    assert followed.applied == []
    await followed.reloader.look()
    (deployment,) = followed.applied
    assert deployment == load_deployment(followed.folder)
    assert followed.reloader.in_force.version == "local-2"
    assert followed.reloader.in_force.hash != before.hash
    await followed.settle()
    assert len(followed.applied) == 1


async def test_a_set_written_in_pieces_is_not_read_before_its_last(followed: Followed) -> None:
    """Every piece leaves documents that are good by themselves, a second or two apart."""
    pieces = (
        ("policy.yaml", VERSION, "version: local-2"),
        ("tiers/premium.yaml", "ttft_ms: 400", "ttft_ms: 300"),
        ("tiers/standard.yaml", "priority: 50", "priority: 51"),
    )
    for name, old, new in pieces:
        edit(followed.folder / name, old, new)
        for _ in range(QUIET_LOOKS):
            await followed.reloader.look()
    assert followed.applied == []
    await followed.settle()
    assert followed.applied == [load_deployment(followed.folder)]


async def test_what_changes_while_it_is_read_is_not_taken_over(folder: Path) -> None:
    versions = iter(["local-3", "local-4"])
    busy = False

    def load() -> Deployment:
        deployment = load_deployment(folder)
        if busy and (version := next(versions, None)):
            (folder / "policy.yaml").write_text(f"version: {version}")
        return deployment

    followed = Followed(folder, load)
    busy = True
    edit(folder / "policy.yaml", VERSION, "version: local-2")
    for _ in range(3):
        await followed.settle()
    assert [deployment.policy.version for deployment in followed.applied] == ["local-4"]
    assert (followed.failures, followed.said) == (0, "")


def test_a_torn_read_is_no_problem_of_the_documents(folder: Path) -> None:
    def load() -> Deployment:
        (folder / "policy.yaml").write_text("version: [")
        return load_deployment(folder)

    with pytest.raises(Unsettled, match="change while they are read; try again"):
        Source(folder, load).read()
    with pytest.raises(ConfigError, match="not valid YAML"):
        Source(folder, load).read()


async def test_bad_documents_are_refused_once_and_the_last_good_ones_stay(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    good = followed.reloader.in_force
    edit(followed.folder / "policy.yaml", VERSION, "version: [")
    edit(followed.folder / "tiers/premium.yaml", "ttft_ms", "tfft_ms")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await followed.settle()
    assert (followed.applied, followed.failures) == ([], 1)
    assert "policy.yaml: not valid YAML" in followed.said
    assert "tfft_ms: unknown key; did you mean 'ttft_ms'?" in followed.said
    assert followed.reloader.in_force._replace(problems=()) == good
    assert [record.message for record in caplog.records] == [
        *followed.reloader.in_force.problems,
        "changed documents refused; policy local-1 stays in force",
    ]
    edit(followed.folder / "policy.yaml", "version: [", "version: local-2")
    await followed.settle()
    assert followed.failures == 2, "another set, and bad too"
    edit(followed.folder / "tiers/premium.yaml", "tfft_ms", "ttft_ms")
    await followed.settle()
    assert [deployment.policy.version for deployment in followed.applied] == ["local-2"]
    assert followed.said == ""


async def test_going_back_to_what_is_in_force_ends_the_error(followed: Followed) -> None:
    edit(followed.folder / "policy.yaml", VERSION, "version: [")
    await followed.settle()
    assert followed.said
    edit(followed.folder / "policy.yaml", "version: [", VERSION)
    await followed.settle()
    assert (followed.said, followed.applied) == ("", [])
    edit(followed.folder / "policy.yaml", VERSION, "version: [")
    await followed.settle()
    assert followed.failures == 2, "the same mistake again is a new one"


async def test_what_the_gateway_cannot_use_is_refused_too(followed: Followed) -> None:
    followed.unacceptable = "no tokenizer in models/tome"
    edit(followed.folder / "policy.yaml", VERSION, "version: local-2")
    await followed.settle()
    assert (followed.failures, followed.said) == (1, "no tokenizer in models/tome")
    assert followed.reloader.in_force.version == "local-1"


async def test_a_folder_that_goes_and_comes_back(followed: Followed, tmp_path: Path) -> None:
    followed.folder.rename(tmp_path / "away")
    await followed.settle()
    assert "not a folder" in followed.said
    (tmp_path / "away").rename(followed.folder)
    await followed.settle()
    assert (followed.said, followed.applied) == ("", [])


async def test_what_can_be_proved_of_a_policy_keeps_it_from_being_taken_over(
    followed: Followed,
) -> None:
    edit(followed.folder / "policy.yaml", VERSION, "version: local-2\nrules: [{name: idle, when: '1 > 2', forbid: [min-latency]}]")  # fmt: skip
    await followed.settle()
    assert followed.said.startswith("policy.yaml: rule idle: never applies")
    assert followed.applied == []


async def test_but_not_what_is_wrong_with_the_policy_in_force_already(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit(folder / "policy.yaml", VERSION, f"{VERSION}\nrules: [{{name: idle, when: '1 > 2', forbid: [min-latency]}}]")  # fmt: skip
    followed = Followed(folder)
    assert "rule idle: never applies" in caplog.text
    edit(folder / "policy.yaml", VERSION, "version: local-2")
    await followed.settle()
    assert [deployment.policy.version for deployment in followed.applied] == ["local-2"]


async def test_a_tier_for_short_answers_is_taken_over_with_a_warning_that_is_given_once(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    tier = "name: quick\ne2e_ms: 100\nprofiles: [min-latency]\n"
    (followed.folder / "tiers/quick.yaml").write_text(tier)
    await followed.settle()
    assert [tier.name for tier in followed.applied[-1].tiers].count("quick") == 1
    edit(followed.folder / "policy.yaml", VERSION, "version: local-2")
    await followed.settle()
    assert len(followed.applied) == 2
    warned = [r.message for r in caplog.records if "no profile is in time" in r.message]
    assert len(warned) == 1
    assert warned[0].startswith("policy.yaml: tier quick, model scribe: ")


@pytest.mark.parametrize(
    ("file", "old", "new", "warned"),
    [
        ("tiers/premium.yaml", "ttft_ms: 400", "ttft_ms: 300", True),
        ("policy.yaml", VERSION, f"{VERSION}\npatience_s: 7.25", True),
        ("policy.yaml", VERSION, "version: local-2\npatience_s: 7.25", False),
        ("tenants/acme.yaml", "quota:", "weight: 2\nquota:", False),
    ],
)
async def test_decisions_that_change_under_one_version_are_pointed_out(
    followed: Followed,
    caplog: pytest.LogCaptureFixture,
    file: str,
    old: str,
    new: str,
    warned: bool,
) -> None:
    before = followed.reloader.in_force.hash
    edit(followed.folder / file, old, new)
    with caplog.at_level(logging.INFO):
        await followed.settle()
    assert len(followed.applied) == 1
    assert followed.reloader.in_force.hash != before
    assert f"changed {file}" in caplog.text
    assert ("still says version local-1" in caplog.text) is warned


# A ConfigMap: the kubelet writes a new folder and swaps one link.


def mount(documents: Path, volume: Path) -> None:
    """As the kubelet does: `policy.yaml -> ..data/policy.yaml`, `..data -> ..0001`."""
    shutil.copytree(documents, volume / "..0001")
    (volume / "..data").symlink_to("..0001")
    for path in documents.iterdir():
        (volume / path.name).symlink_to(Path("..data") / path.name)


def swap(volume: Path, change: Callable[[Path], None]) -> None:
    old = volume / (volume / "..data").readlink()
    new = volume / f"..{int(old.name.strip('.')) + 1:04}"
    shutil.copytree(old, new)
    change(new)
    (volume / "..data_tmp").symlink_to(new.name)
    (volume / "..data_tmp").rename(volume / "..data")
    shutil.rmtree(old)


async def test_a_mounted_config_map(folder: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    mount(folder, volume)
    followed = Followed(volume)
    await followed.settle()
    before = followed.reloader.in_force.hash
    assert before == Followed(folder).reloader.in_force.hash, "wherever the documents lie"

    swap(volume, lambda new: None)
    await followed.settle()
    assert followed.applied == []
    swap(volume, lambda new: edit(new / "policy.yaml", VERSION, "version: local-2"))
    await followed.settle()
    swap(volume, lambda new: (new / "tiers/premium.yaml").unlink())
    await followed.settle()
    assert "tier 'premium', which is not defined" in followed.said
    assert [deployment.policy.version for deployment in followed.applied] == ["local-2"]


# A candidate policy and how it is tried.


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ({"rollout.yaml": "mode: shadow"}, "has no candidate policy; write it to policy.next.yaml"),
        ({"policy.next.yaml": VERSION}, "the version of the policy, 'local-1'; decisions are told"),
        ({"policy.next.yaml": "version: 2"}, "policy.next.yaml: version: Input should be a valid s"),
        (
            {"policy.next.yaml": "version: n\nrules: [{name: r, forbid: [wide]}]"},
            "rule r of the candidate policy names profile 'wide', which is not defined",
        ),
        (
            {"policy.next.yaml": "version: n\nrules: [{name: r, when: 'a', forbid: [min-latency]}]"},
            "policy.next.yaml: rule r: when:",
        ),
        (
            {"policy.next.yaml": "version: n\nrules: [{name: r, when: '1 > 2', forbid: [min-latency]}]"},
            "policy.next.yaml: rule r: never applies",
        ),
        (
            {"policy.next.yaml": "version: n", "rollout.yaml": "mode: canary\ntenants: [umbra]"},
            "the rollout names tenant 'umbra', which is not defined; defined are acme",
        ),
        (
            {"policy.next.yaml": "version: n", "rollout.yaml": "mode: canary"},
            "rollout.yaml: (document): a canary needs tenants",
        ),
    ],
)  # fmt: skip
async def test_a_candidate_that_cannot_be_tried(
    followed: Followed, documents: dict[str, str], said: str
) -> None:
    for name, text in documents.items():
        (followed.folder / name).write_text(text)
    await followed.settle()
    assert said in followed.said
    assert followed.applied == []


async def test_a_candidate_is_loaded_with_the_rest(followed: Followed) -> None:
    (followed.folder / "policy.next.yaml").write_text("version: next")
    (followed.folder / "rollout.yaml").write_text("mode: canary\nshare: 0.25")
    await followed.settle()
    (deployment,) = followed.applied
    assert deployment.candidate is not None
    assert deployment.rollout is not None
    assert (deployment.candidate.version, deployment.rollout.share) == ("next", 0.25)
    assert load_deployment(followed.folder, followed.folder / "policy.yaml").candidate is None
