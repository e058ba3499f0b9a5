"""What a router's bookkeeping costs per request: `python benchmarks/accounts.py`.

Prefixes: 8 or 64 replicas whose caches are full, prompts of 30 blocks, half of them shared. Waiting
room: one request comes and one goes while 50 or 5,000 wait (A B A B), so that the cost of a long
queue shows. Ledger: reserve, settle, and the outcome observed. Medians over rounds, one core.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

from paretoserve.domain.tenant import Contract, Quota, Tenant
from paretoserve.ledger.attainment import Attainment
from paretoserve.ledger.fairness import VirtualTime
from paretoserve.ledger.ledger import Ledger
from paretoserve.placement.prefixes import PrefixIndex, block_hashes
from paretoserve.placement.waiting_room import Waiting, WaitingRoom

BLOCKS, CACHE_TOKENS, TENANTS = 30, 64_000, 100

Step = Callable[[int], object]


def hashing(draw: random.Random) -> Step:
    prompt = [draw.randrange(200_000) for _ in range(4096)]
    return lambda _: block_hashes(prompt)


def prefixes(draw: random.Random, replicas: int) -> Step:
    """Look up and remember one prompt of 30 blocks."""
    index = PrefixIndex()
    names = [f"r{number}" for number in range(replicas)]
    for name in names:
        index.set_capacity(name, CACHE_TOKENS)
    shared = [tuple(draw.getrandbits(64) for _ in range(BLOCKS // 2)) for _ in range(20)]

    def step(number: int) -> None:
        own = tuple(draw.getrandbits(64) for _ in range(BLOCKS // 2))
        blocks = shared[number % 20] + own
        index.lookup(blocks, BLOCKS * 64)
        index.remember(names[number * 7 % replicas], blocks, number / 300)

    for number in range(-5000, 0):
        step(number)
    return step


def waiting(draw: random.Random, held: int) -> Step:
    """A request comes, the next of its tier is asked for, placed and charged."""
    fairness = VirtualTime()
    room = WaitingRoom(fairness, capacity=2 * held)

    def add(number: int) -> None:
        tenant, now = f"t{draw.randrange(TENANTS)}", number / 300
        deadline = now + draw.uniform(60, 120)
        room.add(Waiting(f"r{number}", "batch", tenant, 0, deadline, deadline, now))

    def step(number: int) -> None:
        add(number)
        head = room.next({})
        assert head is not None
        room.remove(head.request_id)
        fairness.charge(head.tier, head.tenant, 0.5, 1.0)
        room.next_expiry()

    for number in range(-held, 0):
        add(number)
    return step


def accounts(draw: random.Random) -> Step:
    """Covered, reserved, settled, observed; every second one of 100 pairs burns."""
    tenants = [
        Tenant(
            name=f"t{number}",
            key_hashes=("sha256:" + "0" * 64,),
            tiers=("gold",),
            quota=Quota(gpu_seconds_per_minute=1e6),
            contracts={"gold": Contract(gpu_seconds_per_s=100)},
        )
        for number in range(TENANTS)
    ]
    ledger, attainment = Ledger(), Attainment({"gold": 0.99})

    def step(number: int) -> None:
        tenant, now, request_id = tenants[number % TENANTS], number / 300, f"r{number}"
        ledger.covers(tenant, "gold", 0.5, now)
        ledger.reserve(tenant, request_id, 0.5, now, "gold")
        ledger.settle(request_id, draw.random())
        attainment.observe(tenant.name, "gold", number % 2 == 0, now)
        attainment.burns(now)

    return step


def microseconds(step: Step, first: int, steps: int) -> float:
    began = time.perf_counter()
    for number in range(first, first + steps):
        step(number)
    return (time.perf_counter() - began) / steps * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=500)
    args = parser.parse_args()
    draw = random.Random(0)
    measured: dict[str, Step] = {
        "hashes of 4,096 tokens": hashing(draw),
        "prefixes, 8 replicas": prefixes(draw, 8),
        "prefixes, 64 replicas": prefixes(draw, 64),
        "waiting room, 50 wait": waiting(draw, 50),
        "waiting room, 5,000 wait": waiting(draw, 5000),
        "ledger and attainment": accounts(draw),
    }
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for round_number in range(args.rounds):
        for name, step in measured.items():
            taken[name].append(microseconds(step, round_number * args.steps, args.steps))
    for name, values in taken.items():
        print(f"{name:26} {statistics.median(values):7.1f} us  (least {min(values):.1f})")


if __name__ == "__main__":
    main()
