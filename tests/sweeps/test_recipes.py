from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.codec import decode, encode
from model.net.gpt import GPTConfig
from model.net.lanes import TwoLanes
from model.run import RunConfig
from model.stages import Stage
from service.corpus.documents import find_documents
from service.source import ROOT
from service.spec import RunSpec
from sweeps.recipes import RECIPES
from sweeps.recipes.core import core
from sweeps.recipes.tiny import tiny
from sweeps.spaces import SWEEPS


def build(name: str) -> RunSpec:
    module, _, function = RECIPES[name].partition(":")
    recipe: Callable[[], Any] = getattr(importlib.import_module(module), function)
    spec = recipe()
    assert isinstance(spec, RunSpec)
    return spec


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_spec_of_that_name_with_a_note_and_a_corpus_that_is_there(name: str) -> None:
    spec = build(name)
    assert spec.name == name
    assert spec.notes
    assert isinstance(spec.config, RunConfig)
    assert find_documents(spec.corpus).path.is_file()
    assert spec.scores


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_same_value_each_time_and_survives_the_job_file(name: str) -> None:
    spec = build(name)
    assert spec == build(name)
    assert decode(encode(spec.config)) == spec.config


def test_no_two_recipes_are_the_same_experiment() -> None:
    assert len({build(name).digest() for name in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_batches_and_heads_fit_its_gang(name: str) -> None:
    spec = build(name)
    train = spec.config.train
    assert train.batch_tokens % (train.seq_len * spec.gang.ranks) == 0
    assert spec.gang.hardware or not train.minutes, "a training that ends by the clock says on what"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_whose_score_leaks_says_so_and_reproduces_one_that_does(name: str) -> None:
    """SLOT fits on context; TTT comes after scores and leaves no trace; nothing trains on the validation split."""
    spec = build(name)
    slot: Any = spec.config.score.slot
    leaks = slot is not None and (slot.loss_on != "context" or slot.after is not None)
    leaks = leaks or spec.config.adapt.prequant is not None
    assert leaks == name.startswith(("pr1303", "pr1313", "pr1488", "pr1176", "pr1423", "tiny_prequant"))
    assert leaks == any(word in spec.notes for word in ("leaks", "illegal"))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_fits_its_recipe_and_compares_more_than_one_config_over_three_seeds(name: str) -> None:
    sweep = SWEEPS[name]
    assert sweep.name == name
    sweep.check(build(sweep.recipe))
    assert len(sweep.trials()) > 1
    assert len(sweep.seeds) >= 3
    digests = {(stage, build(sweep.recipe).at(overlay).digest()) for stage, overlay in sweep.trials()}
    assert len(digests) == len(sweep.trials())


def test_the_slot_sweep_changes_nothing_but_slot() -> None:
    assert all(path.startswith("score.slot.") for path in SWEEPS["slot"].space)
    assert SWEEPS["slot"].objective is Stage.SLOT


def weights(net: GPTConfig) -> int:
    """The number of weights by hand."""
    head, kv_dim = net.dim // net.heads, net.dim // net.heads * net.kv_heads
    attention = 2 * net.dim * net.dim + 2 * net.dim * head * net.kv_heads + net.heads
    mlp = 2 * net.dim * net.dim * net.mlp_mult
    scales = 4 * net.dim  # residual mix (2, D), and one (D,) each for attention and MLP
    parts: Any = net
    looped = (
        0 if parts.recurrence is None else parts.recurrence.loops * (1 + parts.recurrence.last - parts.recurrence.first)
    )
    skips = (net.layers + looped) // 2 * net.dim * (1 if net.skip_gates is None else 2)
    added = net.dim if net.smear is not None else 0
    if parts.bigram is not None:
        added += (parts.bigram.rows + net.dim) * parts.bigram.width + 1
    if parts.value_embedding is not None:
        added += (net.vocab_size + kv_dim) * parts.value_embedding.width + 1 + parts.value_embedding.last
    if parts.value_residual is not None:
        added += net.layers - 1
    if isinstance(parts.parallel, TwoLanes):
        added += 6 * (net.layers - parts.parallel.first)
    return net.vocab_size * net.dim + net.layers * (attention + mlp + scales) + skips + added


@pytest.mark.parametrize("name", RECIPES)
def test_the_parameters_of_a_recipe_are_those_counted_by_hand(name: str) -> None:
    net = build(name).config.net
    assert net.parameters == weights(net)


def test_the_parameters_of_tiny_are_those_of_the_network_it_builds() -> None:
    net = tiny().config.net
    assert net.parameters == sum(weight.numel() for weight in net.build().parameters())
    assert f"{net.parameters / 1e6:.2f} M parameters" in (tiny.__doc__ or "")


def test_tiny_runs_anywhere_and_core_is_the_field_s_size() -> None:
    assert (tiny().gang.ranks, tiny().gang.threads, tiny().gang.device) == (1, 1, "cpu")
    assert tiny().config.train.minutes == 0
    caps = core().budget
    assert (caps.artifact_bytes, caps.train_s, caps.eval_s) == (16_000_000, 600, 600)
    assert (core().gang.ranks, core().gang.device, core().config.train.minutes) == (8, "cuda", 10)


def test_an_entry_script_runs_from_any_folder(tmp_path: Path) -> None:
    script = ROOT / "sweeps" / "slot_sweep.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], cwd=tmp_path, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--space" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_an_entry_script_that_names_it(name: str) -> None:
    text = (ROOT / "sweeps" / f"{name}_sweep.py").read_text(encoding="utf-8")
    assert f'main(["sweep", "{name}", *sys.argv[1:]])' in text
