"""The coordinator gives up on worker groups that fail again and again at one place."""

from __future__ import annotations

import pytest

from unfused_ray.training.coordinator import Coordinator, RunProgress


def attempts(failures: list[tuple[int, int]]) -> str:
    """What the next group of workers is told after groups that began and failed at these steps."""
    coordinator = Coordinator(None)
    for first, last in failures:
        assert coordinator.begin_attempt(first) == ""
        coordinator.report(RunProgress("training", max(first, last - 2)))
        coordinator.failed_at(last)
        coordinator.note_failure("worker 1 failed (out of memory)")
    answer = coordinator.begin_attempt(failures[-1][0])
    coordinator.close("FAILED")
    return answer


def test_groups_that_fail_three_times_at_one_place_are_given_up() -> None:
    assert attempts([(0, 9), (4, 7), (4, 7), (4, 7)]) == (
        "the workers have failed 3 times at step 7: worker 1 failed (out of memory)"
    )
    assert attempts([(4, 7), (4, 5), (4, 6)]) != ""  # the last report is a moment old


@pytest.mark.parametrize(
    "failures",
    [[(4, 7), (4, 7)], [(4, 20), (4, 60), (4, 35)], [(3, 7), (4, 7), (5, 7)]],
    ids=["twice", "anywhere", "after newer checkpoints"],
)
def test_groups_that_are_lost_on_their_way_begin_again(failures: list[tuple[int, int]]) -> None:
    assert attempts(failures) == ""
