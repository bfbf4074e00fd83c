"""Against beats that real pulses write, and a clock that the test turns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.pulse import BEAT, Pulse, read_beat
from service.adapters.watchdog import STARTING_S, Limits, Stop, Watchdog


class Clock:
    """A monotonic clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watchdog(folder: Path, clock: Clock, ranks: int = 2, **limits: float) -> Watchdog:
    return Watchdog(folder, Limits(**{"deadline_s": 900.0, **limits}), ranks, clock)  # type: ignore[arg-type]


def stop(dog: Watchdog) -> Stop | None:
    found = dog.look()
    return found.stop if found else None


def test_a_gang_that_beats_is_left_alone_until_its_deadline(tmp_path: Path, clock: Clock) -> None:
    dog, pulses = watchdog(tmp_path, clock, silence_s=30.0), [Pulse(tmp_path, rank) for rank in range(2)]
    for _ in range(45):
        clock.now += 20
        for pulse in pulses:
            pulse.beat()
        assert stop(dog) is None
    clock.now += 1
    assert stop(dog) is Stop.DEADLINE


def test_one_silent_rank_is_enough_and_the_one_that_came_least_far_is_named(tmp_path: Path, clock: Clock) -> None:
    dog, pulses = watchdog(tmp_path, clock, ranks=3, silence_s=30.0), [Pulse(tmp_path, rank) for rank in range(3)]
    for pulse in (*pulses, pulses[0], pulses[2]):
        pulse.beat()
    assert stop(dog) is None
    clock.now += 29
    pulses[0].beat()
    assert stop(dog) is None
    clock.now += 2
    found = dog.look()
    assert found is not None
    assert found.stop is Stop.SILENCE
    assert "rank 1 came least far, 2 beats (others: 4)" in found.why


def test_a_gang_that_never_says_anything_hangs_too(tmp_path: Path, clock: Clock) -> None:
    dog = watchdog(tmp_path, clock, silence_s=30.0)
    clock.now += STARTING_S
    assert stop(dog) is None, "importing torch is slow, and not hung"
    clock.now += 1
    assert stop(dog) is Stop.SILENCE


def test_a_stage_without_beats_has_its_deadline_only(tmp_path: Path, clock: Clock) -> None:
    dog = watchdog(tmp_path, clock)
    clock.now += 899
    assert stop(dog) is None


def test_a_stage_whose_own_clock_passes_its_cap_is_ended_before_the_process_clock(tmp_path: Path, clock: Clock) -> None:
    dog, pulse = watchdog(tmp_path, clock, ranks=1, own_s=600.0, silence_s=30.0), Pulse(tmp_path, 0)
    pulse.beat(600.0)
    assert stop(dog) is None
    pulse.beat(600.4)
    found = dog.look()
    assert found is not None
    assert found.stop is Stop.OWN_CLOCK
    assert found.why == "its own clock shows 600.4 s, and the cap is 600 s"


@pytest.mark.parametrize("shift_s", [-7200, 7200])
def test_file_times_that_jump_end_nobody(tmp_path: Path, clock: Clock, shift_s: int) -> None:
    dog, pulse = watchdog(tmp_path, clock, ranks=1, silence_s=30.0), Pulse(tmp_path, 0)
    for _ in range(5):
        clock.now += 20
        pulse.beat()
        path = tmp_path / f"{BEAT}.0"
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + shift_s))
        assert stop(dog) is None


@pytest.mark.parametrize("text", ["", "12", "           1  ", "1 2 3\n", "   7   0.1"])
def test_a_beat_that_is_half_written_is_none(text: str) -> None:
    assert read_beat(text) is None


def test_a_pulse_tells_its_count_and_the_stage_s_own_clock(tmp_path: Path) -> None:
    pulse = Pulse(tmp_path, 3)
    pulse.beat(12.5)
    assert read_beat((tmp_path / f"{BEAT}.3").read_text()) == (2, 12.5)
