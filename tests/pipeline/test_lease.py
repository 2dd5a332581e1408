"""One holder at a time: refused, waited for, expired, robbed; and two real processes that race many times."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline import lease
from pipeline.archive import Archive
from pipeline.lease import EXPIRY_S, Holder, Lease, holder_of
from schemas.errors import ArchiveBusy, LeaseLost


def take(folder: Path, run_id: str = "mine", wait_s: float = 0.0) -> Lease:
    return lease.acquire(folder, run_id, wait_s=wait_s, watch=lambda _: None)


def change_holder(folder: Path, **changes) -> Holder:
    """Makes the holder another one, as it stands in the table."""
    table = DeltaTable(folder / "lease")
    holder = replace(Holder(**json.loads(table.metadata().configuration[lease.PROPERTY])), **changes)
    lease._write(table, holder)
    return holder


def test_the_second_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    take(tmp_path, "the first run")
    expected = rf"is being indexed by process {os.getpid()} on \S+ since 20.* UTC \(run the first run, last sign of "
    with pytest.raises(ArchiveBusy, match=expected + r"life 0 s ago\); wait for it with --wait SECONDS"):
        take(tmp_path, "the second run")


def test_it_is_free_again_when_given_back_and_terms_rise(tmp_path: Path) -> None:
    terms = []
    for _ in range(3):
        held = take(tmp_path)
        assert holder_of(tmp_path).term == held.term
        held.release()
        assert holder_of(tmp_path) is None
        terms.append(held.term)
    assert terms == sorted(set(terms))


def test_terms_rise_even_if_somebody_removed_the_table(tmp_path: Path) -> None:
    before = take(tmp_path / "a").term
    time.sleep(0.002)
    assert take(tmp_path / "b").term > before


def test_who_waits_gets_it_when_it_is_given_back(tmp_path: Path) -> None:
    first, waited = take(tmp_path), []
    threading.Timer(0.7, first.release).start()
    second = lease.acquire(tmp_path, "second", wait_s=20, watch=waited.append)
    assert second.term > first.term
    assert waited == sorted(waited)
    assert 1 <= len(waited) <= 5


def test_who_waits_in_vain_is_refused_after_that_time(tmp_path: Path) -> None:
    take(tmp_path)
    began = time.monotonic()
    with pytest.raises(ArchiveBusy):
        take(tmp_path, wait_s=0.3)
    assert 0.3 <= time.monotonic() - began < 10


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path) -> None:
    code = f"from pipeline import lease; lease.acquire({str(tmp_path)!r}, 'dead', wait_s=0, watch=print)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert holder_of(tmp_path) is None
    take(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="start times of processes are read from /proc")
def test_a_process_number_that_was_used_again_is_another_process(tmp_path: Path) -> None:
    take(tmp_path)
    change_holder(tmp_path, started="12345")
    assert holder_of(tmp_path) is None


def test_another_machines_process_is_taken_at_its_word_until_it_expires(tmp_path: Path) -> None:
    take(tmp_path)
    there = change_holder(tmp_path, machine="elsewhere", pid=2**22 + 1)
    assert holder_of(tmp_path) == there
    change_holder(tmp_path, beat_s=time.time() - EXPIRY_S - 1)
    assert holder_of(tmp_path) is None


def test_the_heart_beats_and_the_log_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.005)
    monkeypatch.setattr(
        lease, "CONFIGURATION", {**lease.CONFIGURATION, "delta.logRetentionDuration": "interval 0 days"}
    )
    with lease.held(tmp_path, "run") as held:
        first = holder_of(tmp_path).beat_s
        until = time.monotonic() + 30
        while DeltaTable(tmp_path / "lease").version() < 110 and time.monotonic() < until:
            time.sleep(0.05)
        assert holder_of(tmp_path).beat_s > first
        held.check()
    assert DeltaTable(tmp_path / "lease").version() >= 110
    assert len(list((tmp_path / "lease" / "_delta_log").glob("*.json"))) < 80
    assert holder_of(tmp_path) is None


def test_a_holder_that_slept_finds_out_and_leaves_the_new_one_alone(tmp_path: Path) -> None:
    first = take(tmp_path, "first")
    change_holder(tmp_path, beat_s=time.time() - EXPIRY_S - 1)
    second = take(tmp_path, "second")
    first.renew()
    with pytest.raises(LeaseLost, match="another run took over the archive; nothing is lost"):
        first.check()
    first.release()
    assert holder_of(tmp_path).run_id == "second"
    second.check()


def test_what_fails_because_another_took_over_is_told_as_that(tmp_path: Path) -> None:
    def work() -> None:
        with lease.held(tmp_path, "first") as held:
            change_holder(tmp_path, beat_s=time.time() - EXPIRY_S - 1)
            take(tmp_path, "second")
            held.renew()
            raise FileNotFoundError("part-1.parquet")

    with pytest.raises(LeaseLost, match="another run took over") as caught:
        work()
    assert isinstance(caught.value.__context__, FileNotFoundError)


def test_what_fails_while_the_lease_is_held_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="part-1"), lease.held(tmp_path, "first"):
        raise FileNotFoundError("part-1.parquet")
    assert holder_of(tmp_path) is None


# --- races of processes


def contend(folder: str, rounds: int, barrier, log: str) -> None:
    """Takes the lease as often as it can, and writes down when it held it."""
    barrier.wait()
    for _ in range(rounds):
        with suppress(ArchiveBusy):
            held = lease.acquire(folder, str(os.getpid()), wait_s=0, watch=print)
            began = time.monotonic_ns()
            time.sleep(0.001)
            with Path(log).open("a") as stream:
                stream.write(f"{began} {time.monotonic_ns()} {held.term} {os.getpid()}\n")
            held.release()


def test_of_processes_that_race_only_one_holds_it_at_any_time(tmp_path: Path) -> None:
    """Three processes, thirty tries each, from the making of the table on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipeline.test_lease"])
    barrier, log = context.Barrier(3), tmp_path / "log"
    arguments = (str(tmp_path / "archive"), 30, barrier, str(log))
    racers = [context.Process(target=contend, args=arguments) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    held = sorted(tuple(map(int, line.split())) for line in log.read_text().splitlines())
    assert len(held) >= 30
    assert len(Counter(pid for *_, pid in held)) > 1, "they did race"
    assert all(one[1] < two[0] for one, two in pairwise(held)), "never two at a time"
    assert [term for _, _, term, _ in held] == sorted({term for _, _, term, _ in held})


def make(folder: str, barrier) -> None:
    barrier.wait()
    Archive.create(folder)


def test_processes_that_make_the_same_archive_at_once_all_find_it_made(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipeline.test_lease"])
    for number in range(10):
        barrier = context.Barrier(2)
        makers = [context.Process(target=make, args=(str(tmp_path / str(number)), barrier)) for _ in range(2)]
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join(60)
        assert [maker.exitcode for maker in makers] == [0, 0]
        assert Archive.open(tmp_path / str(number)).exists()


def test_a_create_that_was_killed_at_any_step_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "clips" / "_delta_log").mkdir(parents=True)
    (tmp_path / "clips" / "_delta_log" / "_commit_1.json.tmp").write_text("{")
    (tmp_path / "tags").mkdir()
    assert Archive.create(tmp_path).exists()
