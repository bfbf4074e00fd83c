from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from model.data.batches import Batches
from model.data.shards import Corpus
from model.gang import Gang
from model.net.gpt import GPT
from model.stages import Stage
from model.train import TrainConfig, fit
from service.adapters.store_fs import FolderStore
from service.experiment import Experiment, Race, Sampling, contend
from service.history import START_S
from service.progress import score_progress, step_progress
from service.racing import Racing
from service.spec import RunSpec
from service.watch import HEARTBEAT_S, Board, clock, now_and_then, now_line, table, watch
from sweeps.spaces import SWEEPS

SEEDS = (42, 1337, 2024)
NetFactory = Callable[..., GPT]
Finish = Callable[..., Any]


@pytest.fixture
def experiment(spec: RunSpec, corpus: Corpus) -> Experiment:
    """The slot sweep over the tiny recipe."""
    base = contend(spec, {}, SEEDS, corpus, Stage.SLIDING, (Stage.SLIDING,))
    trials = [
        contend(spec.at(overlay), overlay, SEEDS, corpus, Stage.SLOT, (Stage.SLOT,))
        for overlay in SWEEPS["slot"].grid()
    ]
    return Experiment(name="slot-tiny", seeds=SEEDS, contenders=(base, *trials), search=True)


@pytest.fixture
def training_log(
    random_net: NetFactory, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> Callable[[TrainConfig], list[str]]:
    """``training_log(config)``: the lines that a real training prints."""

    def make(config: TrainConfig) -> list[str]:
        batches = Batches(tokens=corpus.tokens("train"), seq_len=config.seq_len, batch_seqs=config.batch_seqs)
        capsys.readouterr()
        fit(random_net(vocab_size=corpus.vocab_size), batches, config, Gang())
        return capsys.readouterr().out.splitlines()

    return make


SHORT = TrainConfig(steps=8, batch_tokens=32, seq_len=16, micro_seqs=2, warmup_steps=0, log_every=2)


def test_progress_is_that_of_the_last_step_line_of_a_real_log(
    training_log: Callable[[TrainConfig], list[str]], tmp_path: Path
) -> None:
    log, lines = tmp_path / "log.txt", ["seed:42", "model_params:123", *training_log(SHORT)]
    seen = []
    for count in range(len(lines)):
        log.write_text("\n".join(lines[: count + 1]) + "\n", encoding="utf-8")
        seen.append(step_progress(log)[0])
    assert seen == [0, 0, 1 / 8, 2 / 8, 4 / 8, 6 / 8, 1]


def test_the_estimate_is_the_pace_so_far_times_all_steps(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(
        "step:1/300 train_loss:6.9 train_time:900ms step_avg:900.00ms\n"
        "step:100/300 train_loss:5.1234 train_time:20000ms step_avg:200.00ms\n"
        "step:150/3",  # a line that is being written
        encoding="utf-8",
    )
    part, total_s = step_progress(log)
    assert part == pytest.approx(1 / 3)
    assert total_s == pytest.approx(60 + START_S)


def test_a_training_that_ends_by_the_clock_promises_its_budget(
    training_log: Callable[[TrainConfig], list[str]], tmp_path: Path
) -> None:
    lines = training_log(TrainConfig(minutes=0.001, batch_tokens=32, seq_len=16, micro_seqs=2, log_every=1))
    (tmp_path / "log.txt").write_text("\n".join(lines), encoding="utf-8")
    part, total_s = step_progress(tmp_path / "log.txt")
    assert 0 < part <= 1
    assert total_s is not None
    assert total_s >= START_S


def test_no_log_yet_is_no_progress(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert [step_progress(log) for log in (None, tmp_path / "gone", tmp_path / "empty")] == [(0.0, None)] * 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (5.4, "5 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (65, "1 min 5 s"), (3725, "62 min 5 s")],
)
def test_a_clock_reads_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def rendered(board: Board) -> list[str]:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(board))
    return console.export_text().splitlines()


def test_the_slot_sweep_s_table_fits_a_line_of_100_columns_from_beginning_to_end(
    experiment: Experiment, store: FolderStore, finish: Finish
) -> None:
    board = Board(experiment, store)
    for seeds in range(len(SEEDS) + 1):
        board.refresh()
        lines = rendered(board)
        assert max(len(line) for line in lines) <= 100
        rows = [line for line in lines if f"{seeds}/3" in line and "score." in line]
        assert len(rows) == len(experiment.contenders)
        assert not any("…" in line for line in lines)
        # Title, header with its three rules, one line a config, one line on what runs now.
        assert len(lines) == 1 + 4 + len(experiment.contenders) + 1
        if seeds < len(SEEDS):
            for contender in experiment.contenders:
                for planned in contender.plans[SEEDS[seeds]]:
                    finish(store, planned)


def test_a_row_shows_the_seeds_so_far_their_spread_and_the_paired_difference(
    experiment: Experiment, store: FolderStore, finish: Finish
) -> None:
    bpb = {42: (2.0, 1.75), 1337: (3.0, 2.5), 2024: (9.0, None)}
    base, trial, *_ = experiment.contenders
    for seed, values in bpb.items():
        for contender, value in zip((base, trial), values, strict=True):
            if value is not None:
                finish(store, contender.plans[seed][-1], {"val_bpb": value})
    base_row, trial_row, *other_rows = (line for line in rendered(Board(experiment, store)) if "score." in line)
    assert re.search(r"base .*score\.sliding .* 3/3 .* 4\.6667 ± 3\.7859 ", base_row)
    # -0.25 and -0.5 on the two seeds that both have, whatever the third one did to the base.
    assert re.search(r"lr=0\.004 steps=4 .*score\.slot .* 2/3 .* 2\.1250 ± 0\.5303 .* -0\.3750", trial_row)
    assert all("0/3" in row for row in other_rows)


def test_what_runs_now_is_told_with_the_part_of_its_training(
    experiment: Experiment, store: FolderStore, finish: Finish
) -> None:
    board = Board(experiment, store)
    assert "0/21 stages" in now_line(board)
    assert "ETA unknown" in now_line(board)
    assert now_line(board).endswith("; starting")
    train, pack, _ = experiment.base.plans[42]
    (store.begin(train.key) / "log.txt").write_text("step:75/300 train_loss:4.0000 train_time:5000ms step_avg:67ms\n")
    with store.lock(train.key):
        board.refresh()
        assert now_line(board).endswith("; now train s42 25%")
    finish(store, train)
    store.begin(pack.key)
    with store.lock(pack.key):
        board.refresh()
        assert now_line(board).startswith("1/21 stages")
        assert now_line(board).endswith("; now pack s42")


def test_the_time_left_is_the_mean_cost_of_each_kind_of_missing_stage(
    experiment: Experiment, store: FolderStore, finish: Finish
) -> None:
    board = Board(experiment, store)
    cost: dict[Stage, float] = {}
    for contender in experiment.contenders[:2]:
        for planned in contender.plans[42]:
            if store.find(planned.key) is None:
                assert not board.eta_s()[1], "a kind of stage that was never seen has no estimate"
                cost[planned.stage] = finish(store, planned).elapsed_s + START_S
            board.refresh()
    missing = {Stage.TRAIN: 2, Stage.PACK: 2, Stage.SLIDING: 2, Stage.SLOT: 3 * 4 - 1}
    left_s, whole = board.eta_s()
    assert whole
    assert left_s == pytest.approx(sum(cost[stage] * count for stage, count in missing.items()))


def test_the_time_left_leaves_out_what_a_race_has_stopped(
    experiment: Experiment, store: FolderStore, finish: Finish
) -> None:
    race = replace(experiment, race=Race(racing=Racing(confirm=())))
    board = Board(race, store)
    for config, contender in enumerate(race.contenders):
        for planned in contender.plans[42]:
            score = {"val_bpb": 1 + 0.1 * abs(config - 2)} if planned.stage.startswith("score.") else None
            if store.find(planned.key) is None:
                finish(store, planned, score)
    board.refresh()
    cost = {race.stages[key][0]: report.elapsed_s + START_S for key, report in board.reports.items()}
    slots = [r.elapsed_s + START_S for key, r in board.reports.items() if race.stages[key][0] is Stage.SLOT]
    cost[Stage.SLOT] = sum(slots) / len(slots)
    left_s, whole = board.eta_s()
    assert whole
    # Two more seeds of the base and of the second trial: three of the four are a tenth behind.
    assert left_s == pytest.approx(2 * sum(cost[s] for s in (Stage.TRAIN, Stage.PACK, Stage.SLIDING, Stage.SLOT)))
    assert now_line(board).startswith("7/15 stages")
    assert len(race.stages) == 21


def test_a_search_that_grows_is_shown_with_its_new_trials_and_has_no_whole_estimate_before(
    experiment: Experiment, store: FolderStore
) -> None:
    sampling = Sampling(trials=4, at_once=2, given=1, digest="", sampler=lambda: None, contend=lambda _: None)  # type: ignore
    whole = replace(experiment, sampling=sampling)
    first = replace(whole, contenders=whole.contenders[:3])
    console = Console(file=io.StringIO(), width=80)
    with watch(first, store, console) as show:
        show(whole)
    board = Board(first, store)
    assert "2 trials not proposed yet" in now_line(board)
    assert not board.eta_s()[1]
    board.show(whole)
    assert now_line(board).startswith("0/21 stages")
    assert "not proposed" not in now_line(board)


def test_plain_output_has_one_line_for_each_stage_that_finishes(
    experiment: Experiment, store: FolderStore, finish: Finish
) -> None:
    first, *others = (planned for plan in experiment.base.plans.values() for planned in plan)
    finish(store, first)  # before anybody watches
    console = Console(file=io.StringIO(), width=80)
    expected = []
    with watch(experiment, store, console):
        for planned in others:
            report = finish(store, planned)
            score = f"  val_bpb {report.metrics['val_bpb']:.4f}" if planned.stage is Stage.SLIDING else ""
            expected.append(f"{planned.stage} seed {planned.seed} done in {report.elapsed_s:.1f} s{score}")
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert sorted(re.sub(r"^\[ *\d+ s\] ", "", line) for line in lines) == sorted(expected)


def test_a_terminal_s_table_goes_away_and_leaves_no_thread(experiment: Experiment, store: FolderStore) -> None:
    screen = io.StringIO()
    with watch(experiment, store, Console(file=screen, width=100, force_terminal=True)):
        assert "watch" in {thread.name for thread in threading.enumerate()}
    assert "watch" not in {thread.name for thread in threading.enumerate()}
    assert "caddie: slot-tiny" in screen.getvalue()
    assert screen.getvalue().rstrip("\r").endswith("\x1b[2K"), "the table is wiped at the end"


def test_an_error_inside_ends_the_watch_and_passes_through(experiment: Experiment, store: FolderStore) -> None:
    with pytest.raises(KeyboardInterrupt), watch(experiment, store, Console(file=io.StringIO())):
        raise KeyboardInterrupt
    assert "watch" not in {thread.name for thread in threading.enumerate()}


def test_a_score_that_is_under_way_shows_its_part_and_its_running_bpb(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert score_progress(None) == score_progress(log) == (0.0, "")
    log.write_text("ttt_chunk:1/9 lr:0.1 train_loss:2.0\n")
    assert score_progress(log) == (0.0, "")
    log.write_text("scored:10% running_bpb:2.5000\nscored:40% running_bpb:2.2912\nttt_chunk:5/9 lr:0.1\n")
    assert score_progress(log) == (0.4, "2.2912")


def test_a_view_that_takes_long_tells_now_and_then_how_far_it_is() -> None:
    out, clock_s = io.StringIO(), iter([0.0, HEARTBEAT_S, HEARTBEAT_S + 1, HEARTBEAT_S + 1, HEARTBEAT_S + 2])
    seen = now_and_then(Console(file=out), "slot-tiny", lambda: next(clock_s))
    for done in (1, 2, 3):
        seen(done, 2002)
    assert out.getvalue() == "MLflow: 2 of 2002 runs of slot-tiny\n"
