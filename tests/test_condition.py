"""Signed margins with tolerances: what holds, what fails, what is undecided."""

import math

import pytest

from pmt.condition import Condition


@pytest.mark.parametrize(
    ("margin", "status"),
    [
        (0.2, "holds"),
        (-0.2, "fails"),
        (0.1, "undecided"),
        (0.0, "undecided"),
        (math.nan, "undecided"),
    ],
)
def test_status_follows_the_margin_outside_its_tolerance(margin, status):
    condition = Condition("name", "text", margin, tolerance=0.1)
    assert condition.status == status
    assert condition.holds == (status == "holds")
    assert condition.as_dict()["status"] == status


def test_an_exact_margin_of_zero_decides_nothing():
    assert Condition("name", "text", 0.0).status == "undecided"
