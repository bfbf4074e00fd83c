from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import FailureKind
from service.failures import RETRIES, RankFailure, cause_of, rank_failure
from service.nodes import STRIKES

TRACE = (
    'Traceback\n  File "/a/model/train.py", line 7, in fit\n    check()\n  File "/a/model/train.py", line 9, in check\n'
)
PEER = "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5077"
NAN = "FloatingPointError: seed 1: the training loss is nan at step 3"


def failed(rank: int, error: str) -> RankFailure:
    return RankFailure(rank=rank, error=error, traceback=TRACE)


@pytest.mark.parametrize(
    "error",
    [NAN, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "MemoryError: ", "KeyError: 'x'"],
)
def test_an_exception_of_a_rank_s_own_is_a_bug_and_is_never_tried_again(error: str) -> None:
    cause = cause_of([failed(0, PEER), failed(1, error)], exit_code=1, ranks=2)
    assert cause.kind is FailureKind.BUG
    assert cause.kind not in RETRIES
    assert cause.why.startswith(f"rank 1: {error}")
    assert "line 9, in check" in cause.why, "its innermost line is in the message"
    assert cause.strikes == 0


def test_ranks_that_lost_a_neighbour_speak_for_the_one_that_was_killed() -> None:
    cause = cause_of([failed(0, PEER)], exit_code=1, ranks=2)
    assert cause.kind is FailureKind.INFRASTRUCTURE
    assert cause.why.startswith("rank 1 ended without a word")
    assert cause.strikes == 0


@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError: CUDA error: uncorrectable ECC error encountered",
        "RuntimeError: Xid 79: GPU has fallen off the bus",
        "AcceleratorError: CUDA error: unspecified launch failure",
    ],
)
def test_broken_hardware_is_not_the_code_s_fault_and_sets_the_node_apart(error: str) -> None:
    cause = cause_of([failed(0, PEER), failed(3, error)], exit_code=1, ranks=8)
    assert cause.kind is FailureKind.INFRASTRUCTURE
    assert "rank 3" in cause.why
    assert cause.strikes >= STRIKES


@pytest.mark.parametrize(
    "error",
    [
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp",
        "DistNetworkError: rendezvous timed out",
    ],
)
def test_a_broken_network_is_tried_again(error: str) -> None:
    cause = cause_of([failed(0, error), failed(1, error)], exit_code=1, ranks=2)
    assert cause.kind in RETRIES
    assert cause.why == f"rank 0: {error}"


def test_a_gang_that_ended_without_a_word_is_tried_again_and_names_its_exit_code() -> None:
    cause = cause_of([], exit_code=-9, ranks=2)
    assert cause.kind in RETRIES
    assert cause.why == "torchrun ended with -9; ranks 0, 1 ended without a word"


@given(st.permutations([NAN, PEER, PEER, "DistStoreError: x"]))
def test_whoever_raised_for_himself_is_named_whatever_the_ranks_order(errors: list[str]) -> None:
    cause = cause_of([failed(rank, error) for rank, error in enumerate(errors)], exit_code=1, ranks=4)
    assert cause.kind is FailureKind.BUG
    assert cause.why.startswith(f"rank {errors.index(NAN)}: {NAN}")


def test_only_what_says_nothing_about_the_stage_has_a_budget() -> None:
    assert set(RETRIES) == {FailureKind.PREEMPTED, FailureKind.INFRASTRUCTURE}
    assert RETRIES[FailureKind.PREEMPTED] > RETRIES[FailureKind.INFRASTRUCTURE] > 0


@pytest.mark.parametrize("data", [{}, {"rank": 1}, {"rank": "x", "error": "e", "traceback": ""}])
def test_half_a_word_of_a_rank_is_no_word(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"rank|int"):
        rank_failure(data)
