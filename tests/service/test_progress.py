from __future__ import annotations

from pathlib import Path

import pytest

from service.progress import TAIL_BYTES, Progress, progress


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def test_a_training_is_as_far_as_its_last_whole_step_line(log: Path) -> None:
    log.write_text("step:1/8 train_loss:6.5 train_time:100ms\nstep:2/8 train_loss:6.25 train_time:500ms\nstep:3/8 tr")
    assert progress(log) == Progress(part=0.25, step="2/8", loss_nats=6.25, left_s=pytest.approx(1.5))


def test_a_score_is_as_far_as_its_last_line_says(log: Path) -> None:
    log.write_text("scored:10% running_bpb:2.5\nscored:100% running_bpb:2.2912\n")
    assert progress(log) == Progress(part=1.0, val_bpb=2.2912)


def test_only_the_end_of_a_long_log_is_read(log: Path) -> None:
    log.write_text("step:1/8 train_loss:6.5 train_time:100ms\n" + "é" * TAIL_BYTES)
    assert progress(log) == Progress()


def test_of_what_says_nothing_nothing_is_known(log: Path) -> None:
    assert progress(None) == progress(log) == Progress()
    log.write_bytes(b"\xff\xfe\n")
    assert progress(log) == Progress()
