"""The bench of training in small: that it compares like with like; how fast is for the script itself to say."""

from __future__ import annotations

import pytest
import torch

from tests.bench.training import compare


def test_both_loops_take_the_same_steps() -> None:
    figures = compare(torch.device("cpu"), steps=3, warmup_steps=0, pairs=1)
    assert figures["max_abs_diff_nats"] == pytest.approx(0, abs=2e-3)
    assert figures["speedup"] == pytest.approx(figures["ours_tokens_per_s"] / figures["plain_tokens_per_s"])
    assert figures["lowest"] == figures["highest"] == figures["speedup"], "of one pair"
