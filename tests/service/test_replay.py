from __future__ import annotations

import math

import numpy as np
import pytest

from service.racing import Racing
from service.replay import (
    Draw,
    draw_knobs,
    draw_neighbours,
    draw_records,
    draw_scores,
    merged_records,
    replay,
    residuals,
)

REPLAYS = 300


@pytest.mark.parametrize("draw", [draw_records, draw_scores], ids=["unpaired", "partly paired"])
@pytest.mark.parametrize(("configs", "seeds"), [(4, 3), (8, 3), (12, 3), (8, 5)])
def test_racing_finds_the_grids_winner_of_records_in_95_of_100_with_half_of_its_runs(
    draw: Draw, configs: int, seeds: int
) -> None:
    done = replay(draw, Racing(), configs, seeds, REPLAYS)
    assert done.within_half == REPLAYS
    assert done.runs <= 0.5
    # Not below 95 % by more than three binomial standard errors.
    assert done.both / REPLAYS >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / REPLAYS)


@pytest.mark.parametrize("draw", [draw_knobs, draw_neighbours], ids=["paired", "unpaired"])
def test_the_test_alone_misses_the_winner_of_close_rivals_no_more_often_than_it_may(draw: Draw) -> None:
    done = replay(draw, Racing(share=1.0), 8, 3, REPLAYS)
    assert done.same / REPLAYS >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / REPLAYS)
    assert done.runs < 0.9


def test_the_winners_mean_over_the_seeds_that_chose_it_flatters_it() -> None:
    done = replay(draw_neighbours, Racing(), 16, 3, REPLAYS)
    assert done.flattery_bpb > 0.0001


def test_drawn_seeds_have_the_means_spreads_and_correlations_of_the_records() -> None:
    records = merged_records()
    sweep = draw_records(np.random.default_rng(0), len(records), 40_000)
    by_mean = {record.claimed.mean: record.claimed for record in records}
    for true, values in zip(sweep.true_bpb, sweep.values, strict=True):
        assert values.mean() == pytest.approx(true, abs=5e-5)
        assert values.std() == pytest.approx(by_mean[true].sd, rel=0.03)
    assert len(set(sweep.artifacts)) == len(records)


def test_scores_of_one_record_keep_their_correlation_and_share_artifacts() -> None:
    pool = sum(len(record.scores) for record in merged_records())
    sweep = draw_scores(np.random.default_rng(0), pool, 40_000)
    places = {float(true): i for i, true in enumerate(sweep.true_bpb)}
    for record in merged_records():
        each = list(record.scores.values())
        rows = [places[sample.mean] for sample in each]
        assert len({sweep.artifacts[row] for row in rows}) == 1
        for one, other, i, j in zip(each, each[1:], rows, rows[1:], strict=False):
            expected = np.corrcoef(residuals(one), residuals(other))[0, 1]
            assert np.corrcoef(sweep.values[i], sweep.values[j])[0, 1] == pytest.approx(expected, abs=0.02)


def test_replays_repeat_themselves_and_more_configs_than_records_are_refused() -> None:
    assert replay(draw_knobs, Racing(), 4, 3, 20) == replay(draw_knobs, Racing(), 4, 3, 20)
    with pytest.raises(ValueError, match="13 configs can't be drawn from 12"):
        draw_records(np.random.default_rng(0), 13, 3)
