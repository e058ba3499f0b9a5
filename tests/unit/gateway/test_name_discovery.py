"""From what a resolver answers to the set of endpoints, look by look."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoserve.gateway.discovery import Endpoint
from paretoserve.gateway.name_discovery import Name, NameDiscovery, replica_id, resolve

FAST = Name("fast", "fast.example", 1)
WIDE = Name("wide", "wide.example", 1)

Answers = dict[str, Sequence[str] | OSError]


class Resolver:
    """Answers what it is told to, once for each `look`."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.threads: set[int] = set()
        self._asked = threading.Semaphore(0)
        self._answer = threading.Semaphore(0)

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.threads.add(threading.get_ident())
        self._asked.release()
        self._answer.acquire()
        answer = self.answers[host]
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def look(self, **answers: Sequence[str] | OSError) -> None:
        """Have each name asked once more, and the answers taken in."""
        self.answers = {f"{name}.example": answer for name, answer in answers.items()}
        for _ in answers:
            self._answer.release()
        for _ in answers:  # they have been taken in when the names are asked again
            await asyncio.to_thread(self._asked.acquire, timeout=10)


class Looked:
    def __init__(self, *names: Name, fixed: dict[str, Endpoint] | None = None) -> None:
        self.resolver = Resolver()
        self.reports: list[set[Endpoint]] = []
        self.ids: list[set[str]] = []
        self.discovery = NameDiscovery(names, fixed, resolve=self.resolver, every_s=0.0)
        self.names = names

    async def __aenter__(self) -> Looked:
        await self.discovery.start(self._take)
        for _ in self.names:
            await asyncio.to_thread(self.resolver._asked.acquire, timeout=10)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.discovery.stop()
        for _ in self.names:
            self.resolver._answer.release()

    def _take(self, endpoints) -> None:
        self.reports.append(set(endpoints.values()))
        self.ids.append(set(endpoints))


def at(profile: str, *addresses: str) -> set[Endpoint]:
    return {Endpoint(profile, address) for address in addresses}


async def test_addresses_come_stay_and_go() -> None:
    async with Looked(FAST) as it:
        await it.resolver.look(fast=["10.0.0.1:1", "[fd00::1]:1"])
        await it.resolver.look(fast=["[fd00::1]:1", "10.0.0.1:1", "10.0.0.1:1"])
        await it.resolver.look(fast=["10.0.0.2:1", "10.0.0.1:1"])
        await it.resolver.look(fast=[])
    assert it.reports == [
        set(),
        at("fast", "10.0.0.1:1", "[fd00::1]:1"),
        at("fast", "10.0.0.1:1", "10.0.0.2:1"),
        set(),
    ]
    assert len(it.ids[1] & it.ids[2]) == 1, "what stays keeps its id"
    assert threading.get_ident() not in it.resolver.threads


async def test_a_resolver_that_fails_takes_nothing_away_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    failure = socket.gaierror(socket.EAI_AGAIN, "it is away")
    async with Looked(FAST) as it:
        await it.resolver.look(fast=failure)
        await it.resolver.look(fast=["10.0.0.1:1"])
        caplog.clear()
        for _ in range(3):
            await it.resolver.look(fast=failure)
        await it.resolver.look(fast=["10.0.0.1:1"])
    assert it.reports == [set(), at("fast", "10.0.0.1:1")]
    assert [record.message for record in caplog.records] == [
        "fast.example:1 of profile fast cannot be looked up: it is away; its 1 addresses stay",
        "fast.example:1 of profile fast can be looked up again",
    ]


async def test_one_name_that_hangs_holds_up_no_other() -> None:
    async with Looked(FAST, WIDE) as it:
        it.resolver.answers = {"fast.example": ["10.0.0.1:1"], "wide.example": ["10.0.0.2:1"]}
        it.resolver._answer.release()  # only one of the two threads goes on
        await asyncio.to_thread(it.resolver._asked.acquire, timeout=10)
        assert len(it.reports[-1]) == 1
        it.resolver._answer.release()
        await asyncio.to_thread(it.resolver._asked.acquire, timeout=10)


async def test_fixed_endpoints_are_always_there_and_none_is_there_twice() -> None:
    fixed = {"fast-0": Endpoint("fast", "10.0.0.9:1")}
    async with Looked(FAST, fixed=fixed) as it:
        await it.resolver.look(fast=["10.0.0.9:1", "10.0.0.1:1"])
    assert it.reports == [at("fast", "10.0.0.9:1"), at("fast", "10.0.0.9:1", "10.0.0.1:1")]
    assert "fast-0" in it.ids[1]
    assert len(it.ids[1]) == 2


_ADDRESSES = st.frozensets(st.sampled_from([f"10.0.0.{n}:1" for n in range(4)]))
_ANSWER = _ADDRESSES | st.just(None)


@given(st.lists(_ANSWER, max_size=6))
def test_what_is_reported_last_is_the_last_answer(answers: list[frozenset[str] | None]) -> None:
    async def play() -> list[set[Endpoint]]:
        async with Looked(FAST) as it:
            for answer in answers:
                failed = OSError("no answer")
                await it.resolver.look(fast=failed if answer is None else sorted(answer))
        return it.reports

    reports = asyncio.run(play())
    last = next((a for a in reversed(answers) if a is not None), frozenset())
    assert reports[-1] == at("fast", *last)
    assert all(one != other for one, other in itertools.pairwise(reports))


def test_the_systems_resolver() -> None:
    assert "127.0.0.1:7" in resolve("localhost", 7)
    assert set(resolve("127.0.0.3", 7)) == {"127.0.0.3:7"}
    assert set(resolve("::1", 7)) == {"[::1]:7"}
    with pytest.raises(OSError, match="not a host name"):
        resolve("a" * 64 + ".example", 7)


def test_ids_tell_the_profile_and_not_the_address() -> None:
    told = replica_id(Endpoint("fast", "10.0.0.1:1"))
    assert told == replica_id(Endpoint("fast", "10.0.0.1:1"))
    assert told.startswith("fast-")
    assert "10.0" not in told
    others = {Endpoint("fast", "10.0.0.2:1"), Endpoint("wide", "10.0.0.1:1")}
    assert told not in set(map(replica_id, others))
