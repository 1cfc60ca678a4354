"""The coordinator gives up on worker groups that fail repeatedly at one place, or before they begin."""

from __future__ import annotations

import pytest

from unfused_ray.training.coordinator import MAX_LOST_NODES, Coordinator, RunProgress

CAUSE = "worker 1 failed (out of memory)"


def attempts(failures: list[tuple[int, int] | None], lost_nodes: tuple[int, ...] = ()) -> str:
    """Let worker groups fail one after the other; return the reason for giving up after the last, or ''.

    Args:
        failures: steps at which each group began and failed; None if it failed before it began.
        lost_nodes: indices of the groups that lost a node.
    """
    coordinator = Coordinator(None)
    said = list[str]()
    for place, failure in enumerate(failures):
        if failure is not None:
            first, last = failure
            assert coordinator.begin_attempt(first) == ""
            coordinator.report(RunProgress("training", max(first, last - 2)))
            coordinator.failed_at(last)
        said.append(coordinator.note_failure([CAUSE], place in lost_nodes))
    assert not any(said[:-1])
    texts = [message.text for message in coordinator.progress().messages]
    again = f"{CAUSE}: starting again from the newest checkpoint"
    assert texts == [CAUSE if reason else again for reason in said]
    coordinator.close("FAILED")
    return said[-1]


def test_groups_that_fail_three_times_at_one_place_are_given_up() -> None:
    assert attempts([(0, 9), (4, 7), (4, 7), (4, 7)]) == f"the workers have failed 3 times at step 7: {CAUSE}"
    assert attempts([(4, 7), (4, 5), (4, 6)]) != ""  # reports may be a second old: near steps are one place


def test_groups_that_fail_three_times_before_they_begin_are_given_up() -> None:
    words = f"the workers have failed 3 times before their first step: {CAUSE}"
    assert attempts([None, None, None]) == words
    assert attempts([(4, 7), (9, 20), None, None]) == words
    assert attempts([(4, 7), None, (4, 7)]) != ""


@pytest.mark.parametrize(
    "failures",
    [
        [(4, 7), (4, 7)],
        [(4, 20), (4, 60), (4, 35)],
        [(3, 7), (4, 7), (5, 7)],
        [None, None],
        [None, (0, 30), (20, 50)],
        [None, None, (0, 30)],
        [None, (0, 30), None],
    ],
    ids=[
        "twice",
        "anywhere",
        "after newer checkpoints",
        "twice before they begin",
        "and come further",
        "begin at last",
        "and do not begin again",
    ],
)
def test_groups_that_are_lost_on_their_way_begin_again(failures: list[tuple[int, int] | None]) -> None:
    assert attempts(failures) == ""


@pytest.mark.parametrize("failure", [(0, 0), None], ids=["embedding every clip", "before they begin"])
def test_lost_nodes_do_not_count_until_they_are_many_at_one_place(failure: tuple[int, int] | None) -> None:
    assert attempts([failure] * 5, lost_nodes=(0, 1, 2, 3, 4)) == ""
    assert attempts([failure] * 5, lost_nodes=(1, 3)) != ""  # three of five failed without a lost node
    assert attempts([failure] * 4, lost_nodes=(1, 3)) == ""
    late = [failure] * (MAX_LOST_NODES - 1) + [(0, 100_000)]
    assert attempts(late, lost_nodes=tuple(range(MAX_LOST_NODES))) == ""
    many = attempts([failure] * MAX_LOST_NODES, lost_nodes=tuple(range(MAX_LOST_NODES)))
    assert many.startswith(f"the workers have failed {MAX_LOST_NODES} times")
