"""Every field of every recipe's config has an effect: another value of it changes what the stage that reads it leaves.

Each path is tried in the first recipe that has it, by running that stage on a few tokens and comparing bit for bit.
Fields that have no say beside another one are tried with that one changed; those that may not matter are named below.
"""

from __future__ import annotations

import importlib
import itertools
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.adapt.stage import prequant_stage
from model.data.shards import open_corpus
from model.gang import Gang
from model.job import ARTIFACT, CHECKPOINT, Job
from model.net.bigram import BigramHash
from model.optim.polar import PolarExpress
from model.optim.swa import Swa
from model.overlay import field_at, overlay
from model.quant.container import read_container
from model.quant.pack import pack_stage
from model.quant.qat import LateQat
from model.score.stage import score_stage
from model.train import train_stage
from service.spec import RunSpec
from sweeps.recipes import RECIPES

NO_SAY = {
    "train.log_every": "what is printed",
    "train.minutes": "a clock, of which no two runs are alike; tests/model/test_train.py has it",
    "train.warmup_steps": "undone",
    "train.micro_seqs": "how much at once",
    "net.vocab_size": "the tokenizer's, any other is refused; tests/model/test_train.py has it",
    "train.optim.sharing": "who computes",
    "adapt.prequant.micro_seqs": "how much at once",
    "score.ttt.micro_seqs": "how much at once",
    "score.slot.after.micro_seqs": "how much at once",
    "score.ttt.keep_weights": "for who scores next; score.slot.after.keep_weights is tried",
}
LBFGS = {"optimiser": "lbfgs", "steps": 9, "history": 2}
CONTEXT = {"loss_on": "context"}
ONLY_WITH: dict[str, dict[str, Any]] = {
    "train.warmdown_frac": {"train.warmdown_steps": 0, "train.warmdown_frac": 0.4},
    "train.order_seed": {"train.order": "shuffled"},
    "train.optim.head_lr": {"net.tie_embeddings": False},
    "pack.code_bytes": {
        "net.dim": 48,
        "net.layers": 2,
        "pack.codec": "zstd",
        "pack.fit_to": 60_000,
        "pack.code_bytes": 20_000,
    },
    "pack.fit_to": {"pack.fit_to": 40_000, "pack.code_bytes": 10_000},
    "pack.gptq.temperature": {"pack.gptq.calibration": "self"},
    "pack.matrices.quantile": {"pack.matrices.floor": 0.0},
    "pack.tables.quantile": {"pack.tables.floor": 0.0},
    "train.optim.projections": {"net.bigram": BigramHash(rows=40, width=4)},
    **{
        f"{slot}.{name}": {f"{slot}.{other}": value for other, value in needed.items()}
        | {"score.windows.batch_seqs": 1, "score.windows.stride": 4}
        for slot in ("score.slot", "score.ttt.score_with")
        for name, needed in (("history", LBFGS), ("context_tokens", CONTEXT), ("warm_start", CONTEXT))
    },
}
"""Path -> what must be so for it to have a say."""
OFF_EVERYWHERE: dict[str, Any] = {
    "train.qat": LateQat(threshold=0.9),
    "train.swa": Swa(every=2, below=2.0),
    "train.optim.orthogonaliser": PolarExpress(),
}
"""Parts that most recipes leave off, by path."""


def spec_of(name: str) -> RunSpec:
    module, _, function = RECIPES[name].partition(":")
    recipe: Callable[[], RunSpec] = getattr(importlib.import_module(module), function)
    return recipe()


def leaves(config: Any, path: str = "") -> Iterator[str]:
    """The dotted paths of all single values."""
    for field in fields(config):
        value, below = getattr(config, field.name), f"{path}.{field.name}" if path else field.name
        if is_dataclass(value):
            yield below
            yield from leaves(value, below)
        elif value is not None or field.name in ("embed_wd", "document_start"):
            yield below


def all_paths() -> dict[str, str]:
    """Each path with the first recipe that has it: in the order in which recipes are listed, twins for full sizes."""
    found: dict[str, str] = {}
    for name in (name for name in RECIPES if f"{name}_tiny" not in RECIPES and name not in ("core", "small")):
        for path in leaves(spec_of(name).config):
            if path.count(".") and not is_dataclass(field_at(spec_of(name).config, path)):
                found.setdefault(path, name)
    return found


PATHS = all_paths()
SHARED = [path for path in PATHS if path.startswith(("train.optim.m", "train.optim.scalar", "train.grad_clip"))]
"""What Muon reads, and what is clipped, for the form that shares the work."""


def small(name: str, corpus: Path) -> Any:
    """The config of a recipe for the tests' text."""
    config = spec_of(name).config
    changes: dict[str, Any] = {
        "net.vocab_size": open_corpus(corpus).vocab_size,
        "net.rope_trained_len": 16,
        "train.steps": 4,
        "train.minutes": 0.0,
        "train.batch_tokens": 128,
        "train.seq_len": 32,
        "train.warmup_steps": 0,
        "train.warmdown_steps": min(3, config.train.warmdown_steps),
        "train.optim.muon_momentum_warmup_steps": 3,
        "pack.small_numel": 300,
        "score.windows.seq_len": 32,
        "score.windows.stride": 24,
        "score.windows.batch_seqs": 4,
    }
    for part in ("score.ttt", "score.slot.after", "score.ttt.score_with"):
        if part in {path.rpartition(".")[0] for path in leaves(config)} and hasattr(
            field_at(config, part), "chunk_tokens"
        ):
            changes[f"{part}.chunk_tokens"] = 64
    return overlay(config, changes)


class Bench:
    """Runs single stages in a folder, from the base's outputs."""

    def __init__(self, corpus: Path, folder: Path) -> None:
        self.corpus, self.folder, self.runs = corpus, folder, 0
        self.bases: dict[Any, Path] = {}
        self.plain: dict[tuple[str, str], Any] = {}

    def stage(self, stage: str, config: Any, inputs: dict[str, str]) -> tuple[Path, dict[str, float]]:
        self.runs += 1
        out = self.folder / str(self.runs)
        out.mkdir()
        job = Job(config=config, seed=5, corpus=str(self.corpus), stage=stage, inputs=inputs)
        functions = {"train": train_stage, "adapt.prequant": prequant_stage, "pack": pack_stage}
        return out, functions.get(stage, score_stage)(job, out, Gang())

    def base(self, config: Any, stage: str) -> dict[str, str]:
        """The folders that ``stage`` reads, made with ``config`` once."""
        if stage == "train":
            return {}
        before = {"pack": "train", "adapt.prequant": "train"}.get(stage, "pack")
        key = (before, repr(config.net), repr(config.train), repr(config.pack) if before == "pack" else "")
        if key not in self.bases:
            self.bases[key], _ = self.stage(before, config, self.base(config, before))
        return {before: str(self.bases[key])}

    def plain_result(self, config: Any, stage: str) -> Any:
        """:meth:`result`, run once: many paths are compared with the same."""
        key = (stage, repr(config))
        if key not in self.plain:
            self.plain[key] = self.result(config, stage)
        return self.plain[key]

    def result(self, config: Any, stage: str) -> Any:
        """What ``stage`` leaves: weights, the artifact's bytes or the score."""
        out, metrics = self.stage(stage, config, self.base(config, stage))
        if stage == "pack":
            return (out / ARTIFACT).read_bytes()
        if stage in ("train", "adapt.prequant"):
            weights = read_container(out / CHECKPOINT)
            return {name: (tuple(weight.shape), weight.numpy().tobytes()) for name, weight in weights.items()}
        return metrics["val_loss_nats"]


@pytest.fixture(scope="module")
def bench(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    torch.set_num_threads(1)
    return Bench(corpus_folder, tmp_path_factory.mktemp("fields"))


def stage_of(path: str, config: Any) -> str:
    """The first stage that reads ``path``; of the windows, the one that feels them most."""
    first = path.split(".")[0]
    if first in ("net", "train"):
        return "train"
    if first == "pack":
        return "pack"
    if first == "adapt":
        return "adapt.prequant"
    named = ".".join(path.split(".")[:2])
    return ("score.slot" if config.score.slot is not None else "score.sliding") if "windows" in named else named


def other_values(config: Any, path: str) -> Iterator[Any]:
    """Values unlike the present one, near and far."""
    parent = field_at(config, path.rpartition(".")[0])
    value, name = field_at(config, path), path.rpartition(".")[2]
    hint = typing.get_type_hints(type(parent))[name]
    if typing.get_origin(hint) is typing.Literal:
        yield from (option for option in typing.get_args(hint) if option != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, max(0, value - 1), 2 * value, value // 2, 1, value + 4, 3 * value)
    elif isinstance(value, float):
        yield from (value * 1.5, value / 2, value / 100, value * 1000, value + 0.25, value + 0.001, 0.9)
    elif value is None:
        yield from (1, 0.7)


def changes_something(bench: Bench, config: Any, path: str, tries: int | None = None) -> bool:
    """Whether one of the first ``tries`` other values does, or any."""
    stage = stage_of(path, config)
    plain = bench.plain_result(config, stage)
    for value in itertools.islice(other_values(config, path), tries):
        try:
            changed = overlay(config, {path: value})
        except ValueError:
            continue  # another one will do
        if field_at(changed, path) != field_at(config, path) and bench.result(changed, stage) != plain:
            return True
    return False


@pytest.mark.parametrize(
    ("path", "name"),
    [*((path, name) for path, name in PATHS.items() if path not in NO_SAY), *((p, "pr1176_tiny") for p in SHARED)],
)
def test_a_field_has_an_effect(bench: Bench, path: str, name: str) -> None:
    config = overlay(small(name, bench.corpus), ONLY_WITH.get(path, {}))
    assert changes_something(bench, config, path), f"no value of {path} changes anything in {name}"


def switched_on() -> Iterator[tuple[str, str]]:
    for part, value in OFF_EVERYWHERE.items():
        yield part, part
        yield from ((part, f"{part}.{field.name}") for field in fields(value))


@pytest.mark.parametrize(("part", "path"), switched_on(), ids=[path for _, path in switched_on()])
def test_a_field_of_a_part_that_no_recipe_has_on_has_an_effect(bench: Bench, part: str, path: str) -> None:
    plain = small("pr1303_tiny", bench.corpus)
    on = replace(OFF_EVERYWHERE[part], floor=0.001) if part == "train.qat" else OFF_EVERYWHERE[part]
    config = overlay(plain, {part: on})
    if path == part:
        assert bench.result(config, "train") != bench.plain_result(plain, "train")
    else:
        assert changes_something(bench, config, path)


def test_a_stage_leaves_the_same_twice_so_that_a_difference_is_the_field_s(bench: Bench) -> None:
    config = small("pr1493_tiny", bench.corpus)
    for stage in ("train", "pack", "score.sliding", "score.ttt"):
        assert bench.result(config, stage) == bench.plain_result(config, stage)


def test_what_has_no_say_is_a_field_and_a_dead_field_would_be_found(bench: Bench) -> None:
    assert NO_SAY.keys() - PATHS.keys() <= {"train.optim.sharing"}
    assert ONLY_WITH.keys() <= PATHS.keys()
    config = small("pr1303_tiny", bench.corpus)
    assert not changes_something(bench, config, "train.log_every", tries=2)
    assert not changes_something(bench, config, "train.optim.head_lr", tries=2)
    assert changes_something(bench, config, "train.optim.matrix_lr")
