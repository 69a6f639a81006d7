"""The simulated cluster against closed forms, and its invariants with failures everywhere."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from cluster import Cluster, Job, Outcome
from simulation import simulate

HARSH = Cluster(
    workers=8,
    gpu=100.0,
    disk=5e8,
    link=2e8,
    schedule=0.1,
    commit=0.2,
    check=0.001,
    start=5.0,
    spread=0.3,
    slow=0.25,
    slow_speed=0.4,
    death=200.0,
    hang=200.0,
    hang_length=60.0,
    time_to_live=30.0,
    coordinator_death=100.0,
    restart=20.0,
)
JOB = Job(units=300, views=1000, bytes=100_000_000, files=6)


@pytest.mark.parametrize(("units", "workers"), [(100, 7), (7, 7), (3, 8), (64, 64), (1, 1)])
def test_equal_units_without_failures_take_whole_rounds(units: int, workers: int):
    outcome = simulate(Job(units, views=50), Cluster(workers, gpu=10, start=3, schedule=0.25, commit=0.0))
    rounds = math.ceil(units / workers)
    assert outcome.seconds == pytest.approx(3 + rounds * 5.25)
    assert outcome.useful == pytest.approx(units * 5.0)
    utilisation = outcome.spent["compute"] / (workers * outcome.seconds)
    assert utilisation == pytest.approx(units * 5.0 / (workers * (3 + rounds * 5.25)))
    assert outcome.lost == outcome.lost_share == 0


def test_the_slower_of_teacher_and_rendering_counts():
    assert simulate(Job(10, 100), Cluster(1, gpu=50, render=20)).seconds == pytest.approx(50)
    assert simulate(Job(10, 100), Cluster(1, gpu=20, render=50)).seconds == pytest.approx(50)


def test_a_slow_disk_is_shared_and_never_idle():
    outcome = simulate(Job(200, views=1, bytes=1000), Cluster(8, gpu=1e9, disk=500.0))
    assert outcome.seconds == pytest.approx(200 * 1000 / 500)
    assert outcome.disk_busy == pytest.approx(outcome.seconds)


def test_a_worker_writes_no_faster_than_its_link():
    outcome = simulate(Job(40, views=1, bytes=1000), Cluster(4, gpu=1e9, disk=1e9, link=100.0))
    assert outcome.seconds == pytest.approx(10 * 1000 / 100)


def test_writing_hides_behind_computing():
    # Ten seconds of computing each; one worker writes for four seconds meanwhile, but for the last unit.
    outcome = simulate(Job(20, views=100, bytes=400), Cluster(1, gpu=10, disk=100.0))
    assert outcome.seconds == pytest.approx(20 * 10 + 4)
    assert outcome.spent.get("blocked", 0.0) == 0


def test_a_slow_coordinator_takes_one_unit_after_the_other():
    outcome = simulate(Job(100, views=1), Cluster(50, gpu=1.0, commit=3.0))
    assert outcome.seconds == pytest.approx(1 + 100 * 3.0)


def test_stragglers_work_at_their_speed():
    # One of two works at a third: of four units it does one, in three times the time.
    outcome = simulate(Job(4, views=10), Cluster(2, gpu=1.0, slow=0.5, slow_speed=1 / 3))
    assert outcome.seconds == pytest.approx(30)
    assert [commit.worker for commit in outcome.commits].count(0) == 1


def test_deaths_cost_what_renewal_theory_says():
    """A unit of t seconds with deaths at rate 1/m and r seconds to come back takes (m + r)(exp(t/m) - 1)."""
    t, m, r, units = 10.0, 20.0, 5.0, 10_000
    outcome = simulate(Job(units, views=10), Cluster(1, gpu=1.0, death=m, restart=r), seed=1)
    expected = (m + r) * (math.exp(t / m) - 1)
    assert outcome.seconds / units == pytest.approx(expected, rel=0.04)
    assert outcome.failures["death"] / units == pytest.approx(math.exp(t / m) - 1, rel=0.04)


def test_a_short_hang_only_delays():
    outcome = simulate(Job(50, views=10), Cluster(1, gpu=1.0, hang=30.0, hang_length=1.0, time_to_live=1e9), seed=2)
    assert outcome.failures["hang"] > 0
    assert outcome.lost == 0
    assert outcome.seconds == pytest.approx(500 + outcome.spent["hung"])


def test_a_long_hang_costs_the_time_to_live_and_what_comes_late_is_dropped():
    cluster = Cluster(2, gpu=1.0, hang=40.0, hang_length=1000.0, time_to_live=5.0)
    outcomes = [simulate(Job(30, views=10), cluster, seed) for seed in range(30)]
    dropped = [commit for outcome in outcomes for commit in outcome.commits if not commit.accepted]
    assert dropped
    assert all(not violations(outcome, Job(30, views=10), cluster) for outcome in outcomes)


def test_units_of_a_row_block_share_their_decoding():
    """Half of rendering is decoding. One unit, to see how long it takes, then eight at a time, fewer at the end."""
    job = Job(units=64, views=10, blocks=8, most=8)
    outcome = simulate(job, Cluster(1, gpu=1e9, render=10, decode=0.5))
    tasks = [1, 7, *[8] * 5, 5, 3, 2, 2, 1, 1, 1, 1]  # at most a third of those that are left, of one row block
    assert sum(tasks) == 64
    assert outcome.seconds == pytest.approx(sum(0.5 * count + 0.5 for count in tasks))
    assert [commit.unit % 8 for commit in outcome.commits] == [number // 8 for number in range(64)]


def test_what_is_read_once_for_several_views_is_read_faster():
    for together in (1, 2, 8):
        cluster = Cluster(1, gpu=1e9, render=1e9, read=5.0)
        assert cluster.views(together) == 5.0 * together
    assert Cluster(1, gpu=100.0, render=40.0, decode=0.75).views(1) == 40.0
    assert Cluster(1, gpu=100.0, render=40.0, decode=0.75).views(3) == pytest.approx(80.0)
    assert Cluster(1, gpu=100.0, render=40.0, decode=0.75).views(100) == 100.0


def test_a_task_takes_two_minutes_at_most_and_leaves_some_for_every_process():
    slow = simulate(Job(64, views=100, blocks=8, most=8), Cluster(1, gpu=2.0))
    assert slow.seconds == pytest.approx(64 * 50)
    assert largest(slow) == 2
    assert largest(simulate(Job(64, views=1, blocks=8, most=8), Cluster(1, gpu=1.0, processes=16))) == 1
    assert largest(simulate(Job(64, views=1, blocks=8, most=8), Cluster(2, gpu=1.0))) == 8


def largest(outcome: Outcome) -> int:
    """Units that were handed in at one time."""
    return max(Counter((commit.end, commit.worker) for commit in outcome.commits).values())


def test_the_coordinator_goes_on_from_its_ledger():
    cluster = Cluster(4, gpu=1.0, coordinator_death=60.0, restart=5.0, prepare=3.0, check=0.01)
    outcome = simulate(Job(100, views=10, files=2), cluster, seed=3)
    assert outcome.failures["coordinator"] > 0
    # Each death costs the units in flight and the restart, never what is in the ledger.
    assert outcome.lost <= outcome.failures["coordinator"] * 4 * 10.0
    away = 5.0 + 3.0 + 0.01 * 2 * 100
    assert 253 < outcome.seconds <= 253 + outcome.failures["coordinator"] * (10.0 + away)


def violations(outcome: Outcome, job: Job, cluster: Cluster) -> list[str]:
    wrong = []
    of_unit: dict[int, list[bool]] = {}
    for commit in outcome.commits:
        of_unit.setdefault(commit.unit, []).append(commit.accepted)
    if sorted(of_unit) != list(range(job.units)):
        wrong.append("not every unit is committed")
    if any(copies[0] is not True or any(copies[1:]) for copies in of_unit.values()):
        wrong.append("a unit has two writers, or a late copy replaced it")
    if any(other.begin < one.end for one, other in pairwise(outcome.commits)):
        wrong.append("two units are committed at once")
    if sum(outcome.spent.values()) != pytest.approx(cluster.workers * outcome.seconds):
        wrong.append("a worker's time is not accounted for")
    if outcome.spent.get("compute", 0.0) != pytest.approx(outcome.useful + outcome.lost):
        wrong.append("computed seconds are neither useful nor lost")
    if not 0 <= outcome.lost_share < 1:
        wrong.append("the lost share is none")
    return wrong


@pytest.mark.parametrize("seed", range(20))
def test_with_every_failure_all_units_are_there_once_and_all_time_is_accounted_for(seed: int):
    """Half of the runs have tasks of several units."""
    job = replace(JOB, blocks=30, most=1 if seed % 2 else 8)
    outcome = simulate(job, HARSH, seed)
    assert all(outcome.failures.values()), outcome.failures
    assert violations(outcome, job, HARSH) == []
    bounds = [JOB.units * JOB.views / 100 / 8, JOB.units * JOB.bytes / 5e8, JOB.units * 0.2]
    assert outcome.seconds > max(bounds)


def test_what_is_useful_is_the_work_and_nothing_else():
    outcome = simulate(JOB, replace(HARSH, spread=0.0, slow=0.0))
    assert outcome.useful == pytest.approx(JOB.units * JOB.views / 100)
    assert outcome.lost > 0


def test_the_same_seed_gives_the_same_outcome():
    assert simulate(JOB, HARSH, 7) == simulate(JOB, HARSH, 7)
    assert simulate(JOB, HARSH, 7) != simulate(JOB, HARSH, 8)
