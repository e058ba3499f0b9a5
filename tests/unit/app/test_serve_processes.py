"""Finding a cluster's processes, and waiting for their end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from paretoserve.app.serve.processes import ProcessRef, family, wait_gone


@pytest.fixture
def tree(tmp_path):
    """A process that names the folder and has a child which does not."""
    child = "import time; time.sleep(300)"
    parent = (
        "import subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.DEVNULL);"
        "print(child.pid, flush=True);"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child_pid = int(process.stdout.readline())
    yield process, child_pid
    for pid in (process.pid, child_pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()


def test_the_family_is_who_names_the_folder_and_their_children(tree, tmp_path):
    process, child = tree
    assert {member.pid for member in family(tmp_path)} == {process.pid, child}
    assert family(tmp_path / "other") == set()


def test_who_does_not_end_is_killed_and_named(tree, tmp_path):
    process, child = tree
    members = family(tmp_path)
    process.stdin.close()
    process.wait(10)
    left = wait_gone(members, timeout_s=0.3)
    assert {member.pid for member in left} == {child}
    deadline = time.monotonic() + 10
    while any(member.alive for member in members) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(member.alive for member in members)


def test_a_later_process_with_the_same_id_is_another_one():
    here = ProcessRef.of(os.getpid())
    assert here is not None
    assert here.alive
    assert not ProcessRef(here.pid, here.parent, here.started - 1).alive
