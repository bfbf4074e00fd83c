"""Logs of seeds: what is composed can be read back, and the field's own lines are read as the field means them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.quant.pack import PackConfig
from model.run import size_lines as printed_size_lines
from model.score.stage import LABELS as PRINTED_LABELS
from service.record.logs import LABELS, Final, half_unit, read_log, seed_log, size_lines

PR_1303 = """\
seed:42
model_params:26862694
step:0/20000 val_loss:6.9310 val_bpb:4.1049 train_time:0ms step_avg:0.02ms
step:6500/20000 train_loss:1.8675 train_time:593340ms step_avg:91.28ms
step:6574/20000 val_loss:1.9212 val_bpb:1.1379 train_time:600092ms step_avg:91.28ms
stopping_early: wallclock_cap train_time:600092ms step:6574/20000
DIAGNOSTIC post_ema val_loss:1.9197 val_bpb:1.1370 eval_time:2101ms
Serialized model: 105919389 bytes
Code size: 62978 bytes
Serialized model int6+lzma: 15764908 bytes
Total submission size: 105982367 bytes
Total submission size int6+lzma: 15827886 bytes
final_int6_roundtrip val_loss:1.9326 val_bpb:1.1446 eval_time:7478ms
final_int6_roundtrip_exact val_loss:1.93258069 val_bpb:1.14458314
final_int6_sliding_window val_loss:1.8928 val_bpb:1.1210 stride:64 eval_time:79878ms
final_int6_sliding_window_exact val_loss:1.89282171 val_bpb:1.12103860
final_int6_roundtrip_exact val_loss:1.89282171 val_bpb:1.12103860
final_slot val_loss:1.5928 val_bpb:0.9433 steps:16 lr:0.008 eval_time:261351ms
final_slot_exact val_loss:1.59279686 val_bpb:0.94334652
"""
"""Lines of the log of seed 42 in openai/parameter-golf #1303."""

SOURCE_DUMP = """\
    log0(f"seed:{args.seed}")
seed:{args.seed}
step:{step}/{args.iterations} train_loss:{loss:.4f} train_time:{ms:.0f}ms step_avg:{ms / step:.2f}ms
Code size: {code_bytes} bytes
Total submission size int6+lzma: {size} bytes
final_slot val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} eval_time:{ms:.0f}ms
final_slot_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}
"""


def test_labels_and_size_lines_are_those_that_the_model_prints() -> None:
    assert {str(stage): label for stage, label in LABELS.items()} == PRINTED_LABELS
    assert size_lines(5, "lzma", 1234, 567) == printed_size_lines(PackConfig(matrix_bits=5, codec="lzma"), 1234, 567)


def test_a_log_of_the_field_is_read() -> None:
    log = read_log(PR_1303)
    assert (log.seed, log.params, log.steps, log.train_ms) == (42, 26_862_694, 6574, 600_092)
    assert (log.model_bytes, log.code_bytes, log.total_bytes) == (15_764_908, 62_978, 15_827_886)
    assert log.finals["final_slot"] == Final(
        val_loss=Decimal("1.59279686"), val_bpb=Decimal("0.94334652"), exact=True, eval_ms=261_351
    )
    assert log.finals["DIAGNOSTIC post_ema"] == Final(
        val_loss=Decimal("1.9197"), val_bpb=Decimal("1.1370"), exact=False, eval_ms=2101
    )


def test_a_label_that_is_printed_again_with_another_score_is_replaced_and_loses_its_time() -> None:
    final = read_log(PR_1303).finals["final_int6_roundtrip"]
    assert (final.val_bpb, final.eval_ms) == (Decimal("1.12103860"), None)


def test_a_dump_of_the_source_is_no_measurement() -> None:
    assert read_log(SOURCE_DUMP) == read_log("")
    assert read_log(SOURCE_DUMP + PR_1303) == read_log(PR_1303)


def test_an_exact_line_in_one_with_its_time_is_read() -> None:
    final = read_log("legal_ttt_exact val_loss:2.79788378 val_bpb:1.08314800 eval_time:289945ms\n").finals["legal_ttt"]
    assert (final.exact, final.eval_ms, str(final.val_bpb)) == (True, 289_945, "1.08314800")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("step:7/700 train_loss:5.1 train_time:912ms step_avg:130.29ms\n", (7, 912)),
        ("step:20/20 train_loss:5.1234 train_time:4012ms step_avg:200.60ms\n", (20, 4012)),
        ("5000/20000 train_loss: 2.8881 train_time: 9.6m tok/s: 6781023\n", (5000, 576_000)),
        ("stopping_early: wallclock_cap train_time: 588015ms step: 5082/20000\n", (5082, 588_015)),
    ],
)
def test_steps_and_training_time_are_read_from_every_format(line: str, expected: tuple[int, int]) -> None:
    log = read_log(line)
    assert (log.steps, log.train_ms) == expected


def test_a_seed_log_is_train_to_pack_sizes_scores_in_this_order() -> None:
    text = seed_log(
        ["train\n", "prequant", "pack"],
        ["Code size: 1 bytes", "Total submission size x: 3 bytes"],
        ["sliding\n", "", "slot"],
    )
    assert text.splitlines() == [
        *("train", "prequant", "pack", "Code size: 1 bytes", "Total submission size x: 3 bytes", "sliding", "slot")
    ]
    assert text.endswith("slot\n")


@given(loss=st.floats(0.001, 20), bpb=st.floats(0.001, 9), eval_ms=st.integers(0, 10**9))
def test_the_two_lines_of_a_score_are_read_back_as_one(loss: float, bpb: float, eval_ms: int) -> None:
    text = (
        f"final_slot val_loss:{loss:.4f} val_bpb:{bpb:.4f} stride:64 eval_time:{eval_ms}ms\n"
        f"final_slot_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}\n"
    )
    (final,) = read_log(text).finals.values()
    assert (float(final.val_loss), float(final.val_bpb)) == (round(loss, 8), round(bpb, 8))
    assert (final.exact, final.eval_ms) == (True, eval_ms)


@given(st.text(alphabet="final_sot val:_bp.exc0123456789\nms", max_size=400))
def test_no_text_makes_reading_fail(text: str) -> None:
    read_log(text)
    read_log(f"Code size: {text} bytes\nfinal_slot val_loss:{text} val_bpb:{text}\n" + "model_params:" + "9" * 5000)


def test_half_a_unit_is_of_the_last_printed_digit() -> None:
    assert half_unit(Decimal("1.0791")) == Decimal("0.00005")
    assert half_unit(Decimal("1.50")) == Decimal("0.005")
    assert half_unit(Decimal("16000000")) == 0
