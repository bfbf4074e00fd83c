from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from service.adapters.nodes_fs import NodeFolder
from service.nodes import APART_S, FRESH_S, SLOWER, Speed, checked_lately, too_slow

KIND = "H100, 8 x 4 cuda"


def speed(node: str, step_ms: float, kind: str = KIND, at_s: float = 0.0) -> Speed:
    return Speed(node=node, kind=kind, step_ms=step_ms, at_s=at_s)


FLEET = [speed("a", 90.0), speed("b", 91.0), speed("c", 92.0)]


def test_a_node_slower_than_its_kind_is_named_with_both_figures() -> None:
    why = too_slow(speed("d", 91 * SLOWER["cuda"] + 0.1), FLEET, "cuda")
    assert "100.20 ms a step" in why
    assert "median 91.00 ms of 3 measurements" in why


@given(st.floats(1.0, 91 * SLOWER["cuda"]))
def test_a_node_within_the_band_is_fit(step_ms: float) -> None:
    assert too_slow(speed("d", step_ms), FLEET, "cuda") == ""


def test_few_measurements_and_other_kinds_of_node_accuse_nobody() -> None:
    assert too_slow(speed("d", 900.0), FLEET[:2], "cuda") == ""
    assert too_slow(speed("d", 900.0), [speed(o.node, o.step_ms, kind="A100") for o in FLEET], "cuda") == ""


def test_a_preflight_is_good_for_a_while_and_for_its_node_and_device() -> None:
    known = [speed("a", 90.0, at_s=1000.0)]
    assert checked_lately("a", "cuda", known, 1000.0 + FRESH_S - 1)
    assert not checked_lately("a", "cuda", known, 1000.0 + FRESH_S)
    assert not checked_lately("a", "cuda", known, 999.0), "a clock that went back proves nothing"
    assert not checked_lately("b", "cuda", known, 1001.0)
    assert not checked_lately("a", "cpu", known, 1001.0)


def test_a_node_set_apart_stays_so_for_every_process_until_it_is_released_or_its_time_is_over(tmp_path: Path) -> None:
    NodeFolder(tmp_path).set_apart("10.0.0.7", "ECC")
    again = NodeFolder(tmp_path)
    (apart,) = again.apart().values()
    assert (apart.node, apart.why) == ("10.0.0.7", "ECC")
    assert again.apart(apart.since_s + APART_S + 1) == {}
    assert again.apart(apart.since_s - APART_S).keys() == {"10.0.0.7"}
    assert not again.release("10.0.0.8")
    assert again.release("10.0.0.7")
    assert again.apart() == {}


def test_the_newest_speed_of_a_node_and_kind_is_kept_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    nodes = NodeFolder(tmp_path)
    for one in (*FLEET, speed("a", 80.0), speed("a", 70.0, kind="other")):
        nodes.note(one)
    (tmp_path / "nodes" / "speed-zz.json").write_text("{")
    found = {(one.node, one.kind): one.step_ms for one in nodes.speeds()}
    assert found == {("a", KIND): 80.0, ("b", KIND): 91.0, ("c", KIND): 92.0, ("a", "other"): 70.0}
