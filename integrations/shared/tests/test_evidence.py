"""What the tests rest on: evidence against a limit is found."""

from __future__ import annotations

from evidence import Seen, most_at_once, rate_excess


def attempts(*spans: tuple[float, float]) -> list[Seen]:
    return [Seen(start, end, process=1, name="task") for start, end in spans]


def test_who_ran_at_the_same_time_is_counted() -> None:
    assert most_at_once(attempts((0, 1), (1, 2), (2, 3))) == 1
    assert most_at_once(attempts((0, 3), (1, 2), (1.5, 4))) == 3
    assert most_at_once(attempts((0, 9), (1, 2), (3, 4))) == 2


def test_starts_beyond_a_rate_are_found_in_any_interval() -> None:
    kept = [0.0, 0.0, 0.25, 0.5, 9.0]
    assert rate_excess(kept, per_second=4, burst=2) <= 0
    assert rate_excess([*kept, 0.4], per_second=4, burst=2) > 0
    assert rate_excess([*kept, 9.0, 9.0], per_second=4, burst=2) == 1
