from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.codec import decode, described, digest, encode
from model.job import Job
from model.net.gpt import GPTConfig
from model.optim.groups import OptimConfig
from model.quant.pack import PackConfig
from model.run import RunConfig
from model.score.sliding import Sliding
from model.score.slot import Slot
from model.score.stage import ScoreConfig
from model.score.windows import WindowConfig
from model.train import TrainConfig

finite = st.floats(1e-9, 10, allow_nan=False)
fraction = st.floats(0, 0.999)
small = st.integers(1, 10_000)

run_configs = st.builds(
    RunConfig,
    net=st.builds(GPTConfig, vocab_size=small, layers=small, qk_gain=finite, ln_scale=st.booleans()),
    train=st.builds(
        TrainConfig,
        steps=small,
        minutes=fraction,
        ema_decay=fraction,
        optim=st.builds(OptimConfig, matrix_lr=finite, beta1=fraction),
    ),
    pack=st.builds(PackConfig, matrix_bits=st.integers(2, 8), codec=st.sampled_from(["raw", "brotli", "lzma"])),
    score=st.builds(
        ScoreConfig,
        windows=st.builds(WindowConfig, batch_seqs=small),
        sliding=st.none() | st.just(Sliding()),
        slot=st.none() | st.builds(Slot, steps=st.integers(0, 100), loss_on=st.sampled_from(["context", "scored"])),
    ),
)
json_values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Sample:
    width: int = 3
    rate: float = 0.5
    kind: Colour = Colour.RED
    home: Path = Path("a/b")
    sizes: tuple[int, ...] = (1, 2)
    options: Mapping[str, Any] = field(default_factory=lambda: {"b": 1, "a": None})
    note: str = described("why")


@given(config=run_configs, seed=st.integers(0, 2**31), inputs=st.dictionaries(st.sampled_from("abc"), st.text()))
def test_a_job_survives_json(config: RunConfig, seed: int, inputs: dict[str, str]) -> None:
    job = Job(config=config, seed=seed, corpus="somewhere", inputs=inputs)
    assert decode(json.loads(json.dumps(encode(job)))) == job


@given(st.recursive(json_values, lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner)))
def test_plain_data_survive_json_with_lists_as_tuples(data: Any) -> None:
    if "class" not in json.dumps(data):
        assert decode(json.loads(json.dumps(encode(data)))) == data


def test_encoding_names_module_and_class_and_keeps_every_field() -> None:
    assert encode(WindowConfig()) == {
        "class": "model.score.windows:WindowConfig",
        "seq_len": 2048,
        "stride": 64,
        "batch_seqs": 32,
    }
    sample = encode(Sample())
    assert (sample["kind"], sample["home"], sample["sizes"], sample["note"]) == ("red", "a/b", [1, 2], "why")


def test_digest_is_the_sha256_of_the_canonical_json_with_bare_class_names() -> None:
    text = '{"batch_seqs":32,"class":"WindowConfig","seq_len":2048,"stride":64}'
    assert digest(WindowConfig(), 64) == hashlib.sha256(text.encode()).hexdigest()
    assert digest(WindowConfig()) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_moving_a_class_to_another_module_keeps_the_digest() -> None:
    moved = dataclasses.make_dataclass("WindowConfig", [("seq_len", int), ("stride", int), ("batch_seqs", int)])
    assert digest(moved(2048, 64, 32)) == digest(WindowConfig())
    assert encode(moved(2048, 64, 32)) != encode(WindowConfig())


def test_digest_leaves_out_described_fields_and_nothing_else() -> None:
    first = digest(Sample())
    assert digest(replace(Sample(), note="another reason")) == first
    changes: dict[str, Any] = {
        "width": 4,
        "rate": 0.25,
        "kind": "blue",
        "home": Path("c"),
        "sizes": (2, 1),
        "options": {"a": 0, "b": 1},
    }
    changed = [digest(replace(Sample(), **{name: value})) for name, value in changes.items()]
    assert len({first, *changed}) == 1 + len(changes)


def test_order_of_a_mapping_does_not_change_the_digest() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest((1, 2)) != digest((2, 1))


@given(first=run_configs, second=run_configs)
def test_digests_are_equal_exactly_when_configs_are(first: RunConfig, second: RunConfig) -> None:
    assert digest(first) == digest(replace(first))
    assert (digest(first) == digest(second)) == (first == second)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_digest_of_a_number_without_json_form_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"x": value})


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", WindowConfig])
def test_a_value_without_json_form_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        encode({"x": value})


@pytest.mark.parametrize(
    "tag",
    [
        "os:system",
        "pathlib:Path",
        "modelling:Config",
        "WindowConfig",
        "",
        "model.nowhere:Config",
        "model.score.windows:Nothing",
        "model.score.windows:",
    ],
)
def test_a_tag_that_names_no_class_of_model_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match=tag or "''"):
        decode({"class": tag})


@pytest.mark.parametrize("tag", ["model.codec:Path", "model.codec:encode", "model.codec:TAG"])
def test_a_tag_that_reaches_through_model_to_something_else_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match=tag):
        decode({"class": tag})
