"""From announcements on Serve's thread to the gateway's event loop."""

from __future__ import annotations

import asyncio
import threading

from paretoserve.app.serve.directory import ReplicaDirectory
from paretoserve.app.serve.discovery import RayServeDiscovery
from paretoserve.gateway.discovery import Endpoint

FAST = Endpoint("min-latency", "127.0.0.1:1")
WIDE = Endpoint("max-throughput", "127.0.0.1:2")


class Handle:
    def __init__(self) -> None:
        self.started = 0

    def options(self) -> Handle:
        self.started += 1
        return self


async def heard(reports: list, count: int) -> None:
    async with asyncio.timeout(10):
        while len(reports) < count:
            await asyncio.sleep(0.005)


async def test_reports_the_present_set_then_each_change_on_the_gateways_loop():
    directory, reports, threads = ReplicaDirectory(), [], set()
    directory.announce("min-latency", {"a": FAST})
    discovery = RayServeDiscovery([], directory)

    def on_endpoints(endpoints) -> None:
        reports.append(dict(endpoints))
        threads.add(threading.get_ident())

    await discovery.start(on_endpoints)
    await asyncio.to_thread(directory.announce, "max-throughput", {"b": WIDE})
    await asyncio.to_thread(directory.announce, "min-latency", {})
    await heard(reports, 3)
    assert reports == [{"a": FAST}, {"a": FAST, "b": WIDE}, {"b": WIDE}]
    assert threads == {threading.get_ident()}
    await discovery.stop()


async def test_the_same_again_is_no_news():
    directory, reports = ReplicaDirectory(), []
    unsubscribe = directory.subscribe(reports.append)
    directory.announce("min-latency", {"a": FAST})
    directory.announce("min-latency", {"a": FAST})
    assert reports == [{}, {"a": FAST}]
    unsubscribe()


async def test_start_wakes_every_handles_router_and_stop_ends_the_reports():
    directory, reports, handles = ReplicaDirectory(), [], [Handle(), Handle()]
    discovery = RayServeDiscovery(handles, directory)
    await discovery.start(reports.append)
    await heard(reports, 1)
    assert [handle.started for handle in handles] == [1, 1]
    await discovery.stop()
    await discovery.stop()
    directory.announce("min-latency", {"a": FAST})
    await asyncio.sleep(0.02)
    assert reports == [{}]
