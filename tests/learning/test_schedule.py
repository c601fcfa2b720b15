"""Schedules against their own definition: shares, geometric rates, and texts that say nothing."""

import math

import pytest

from theodolite.errors import UserError
from theodolite.learning.schedule import Schedule


def test_rates_fall_geometrically():
    schedule = Schedule.parse("adam:1e-3:1e-5")
    assert schedule.at(0.0) == (0, 1e-3)
    assert schedule.at(0.5)[1] == pytest.approx(1e-4)
    assert schedule.at(1.0)[1] == pytest.approx(1e-5)
    ratios = [schedule.at((k + 1) / 10)[1] / schedule.at(k / 10)[1] for k in range(10)]
    assert max(ratios) == pytest.approx(min(ratios))


def test_phases_follow_each_other():
    schedule = Schedule.parse("adam:1e-3:1e-4:0.5, sgd:1e-2:1e-3:0.5")
    assert [phase.optimiser for phase in schedule.phases] == ["adam", "sgd"]
    assert schedule.at(0.499)[0] == 0 and schedule.at(0.5) == (1, 1e-2)
    assert schedule.at(1.0) == (1, pytest.approx(1e-3))


def test_shares_left_out_divide_the_rest():
    schedule = Schedule.parse("adam:1:1:0.2,sgd:1:1,adam:1:1")
    assert [phase.share for phase in schedule.phases] == pytest.approx([0.2, 0.4, 0.4])
    assert math.fsum(phase.share for phase in Schedule.parse("adam:1:1:3,sgd:1:1:1").phases) == pytest.approx(1)
    assert Schedule.parse("adam:1:1:3,sgd:1:1:1").at(0.74)[0] == 0


@pytest.mark.parametrize(
    "text",
    ["", "adam", "adam:1e-3", "adam:1e-3:1e-5:0.5:1", "rmsprop:1:1", "adam:x:1", "adam:0:1", "adam:1:-1", "adam:1:nan",
     "adam:1:1:1,sgd:1:1", "adam:1:1,"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(UserError, match="^schedule: expected"):
        Schedule.parse(text)
