"""Trainings that take turns: who goes on, when one is over, and what is said of one that is not
there.
"""

import time

import pytest

from experiments.benchmarks.racing import Training, race, sooner


@pytest.fixture
def clock(monkeypatch):
    """Processor time that only trainings spend."""
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    return now


def training(name, clock, cost, levels, order=None, **ends):
    """A training whose turns cost so many seconds and reach these levels."""
    found = iter(levels)

    def run():
        clock[0] += cost
        if order is not None:
            order.append(name)

    return Training(name, run, lambda: next(found), **ends)


def test_who_has_had_least_goes_on(clock):
    order: list[str] = []
    slow = training("slow", clock, 2.0, range(9), order, turns=2)
    fast = training("fast", clock, 1.0, range(9), order, turns=4)
    assert race([slow, fast]) == {"slow": slow, "fast": fast}
    assert order == ["slow", "fast", "fast", "slow", "fast", "fast"]
    assert slow.curve == [(2.0, 0), (4.0, 1)]
    assert fast.curve == [(1.0, 0), (2.0, 1), (3.0, 2), (4.0, 3)]


@pytest.mark.parametrize("ends", [{"turns": 3}, {"limit": 2.5}, {"enough": 2}])
def test_a_training_ends_by_its_turns_its_seconds_or_its_level(clock, ends):
    one = training("one", clock, 1.0, range(9), **ends)
    race([one])
    assert len(one.curve) == 3


def test_a_ratio_is_by_seed_and_of_one_that_never_is_there_a_bound(clock):
    def seed(levels):
        own = training("own", clock, 1.0, [0, 5], turns=2)
        return race([own, training("rival", clock, 3.0, levels, turns=len(levels))])

    there, never = seed([0, 4, 5]), seed([0, 1, 2, 3])
    assert sooner([there], "own", "rival", 5) == ([9 / 2], False)
    assert sooner([there, never], "own", "rival", 5) == ([9 / 2, 12 / 2], True)
    assert sooner([{"own": there["own"]}], "own", "rival", 5) == ([], False)
    assert sooner([there], "own", "rival", 6)[0] == [0.0]  # who is never there is sooner at nothing
