from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch

from model.adapt.prequant import Prequant
from model.adapt.stage import AdaptConfig
from model.adapt.ttt import Ttt
from model.audit.flips import FlipPlan, StreamFlip, audited_part, flips_of
from model.audit.outside import OutsideScorer
from model.audit.rules import AUDIT_FILE, judged
from model.audit.scale import LANES_OF_WARM_START, scaled
from model.audit.stage import AuditConfig, audit_stage
from model.audit.text import decoded_texts
from model.audit.twin import build_twin, twin_config
from model.codec import decode, digest, encode
from model.data.shards import open_corpus
from model.gang import Gang
from model.job import Job
from model.net.gpt import GPTConfig
from model.score.sliding import Sliding
from model.score.slot import LANES, Slot
from model.score.stream import Stream
from model.score.windows import WindowConfig
from model.stages import Stage
from service.audit import audit_digest
from sweeps.recipes.core import core
from sweeps.recipes.tiny import tiny

WINDOWS = WindowConfig(seq_len=32, stride=8, batch_seqs=4)


def audited(corpus_folder: Path, out: Path, **changes: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and ``audit.json`` of one audit over the tests' corpus; the job goes through JSON as a gang's does."""
    out.mkdir(exist_ok=True)
    net = GPTConfig(vocab_size=open_corpus(corpus_folder).vocab_size, layers=2, dim=32, heads=2, kv_heads=1)
    config = replace(AuditConfig(net=net, windows=WINDOWS, scorer=Slot(steps=3, lr=0.05)), **changes)
    job = Job(config=config, seed=0, corpus=str(corpus_folder), stage="audit")
    metrics = audit_stage(decode(json.loads(json.dumps(encode(job)))), out, Gang())
    return metrics, json.loads((out / AUDIT_FILE).read_text(encoding="utf-8"))


def test_the_stage_audits_the_scorer_on_the_real_text_and_says_on_what_its_verdict_rests(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, data = audited(corpus_folder, tmp_path)
    assert data["clean"] is True
    assert (metrics["clean"], metrics["rules_broken"], metrics["exposed"]) == (1.0, 0, 0)
    rules = {row["rule"]: row for row in data["rules"]}
    again = judged({name: row["evidence"] for name, row in rules.items()})
    assert [{name: rules[rule.rule][name] for name in asdict(rule)} for rule in again] == [asdict(r) for r in again]

    tokens = np.fromfile(corpus_folder / "val_0.bin", dtype="<u2", offset=1024)[: data["targets"] + 1]
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(corpus_folder / "tiny.model"))
    documents = np.split(tokens.astype(int), np.flatnonzero(tokens == 1)[1:])
    text_bytes = sum(len(tokenizer.decode(part[1:].tolist()).encode()) for part in documents)
    assert data["targets"] == 32 + 2 * 4 * 8 + 2
    assert rules["byte_denominator"]["evidence"]["decoded_bytes"] == text_bytes
    assert rules["full_distribution"]["evidence"]["vocab_size"] == tokenizer.get_piece_size()
    said = capsys.readouterr().out
    assert all(f"audit: {rule.rule} kept: {rule.because}" in said for rule in again)


def test_a_broken_rule_makes_the_audit_unclean_with_the_worst_change_in_its_sentence(
    corpus_folder: Path, tmp_path: Path
) -> None:
    metrics, data = audited(corpus_folder, tmp_path, scorer=Slot(loss_on="scored", steps=3, lr=0.05))
    assert (data["clean"], metrics["clean"], metrics["rules_broken"]) == (False, 0.0, 2)
    rule = data["rules"][0]
    evidence = rule["evidence"]
    assert (rule["rule"], rule["kept"]) == ("strict_prefix", False)
    assert f"{evidence['largest_change_nats']:.6f} nats" in rule["because"]
    assert f"batch {evidence['changed_batch']}, window {evidence['changed_window']}" in rule["because"]
    assert metrics["largest_change_nats"] == evidence["largest_change_nats"] > 1e-3


def test_prequant_runs_first_on_the_stream_that_is_then_scored(corpus_folder: Path, tmp_path: Path) -> None:
    prequant = Prequant(lr=0.01, epochs=7, freeze_blocks=0)
    _, data = audited(corpus_folder, tmp_path, scorer=Sliding(), prequant=prequant, train_seq_len=16)
    assert [row["rule"] for row in data["rules"] if not row["kept"]] == ["strict_prefix", "score_before_update"]
    assert data["shortened_to"] == {"prequant_epochs": 2}


def test_the_service_names_what_is_audited_as_the_gang_does() -> None:
    spec = tiny()
    adapted = replace(spec, config=replace(spec.config, adapt=AdaptConfig(prequant=Prequant())))
    for one, prequant, seq_len in ((spec, None, 0), (adapted, Prequant(), spec.config.train.seq_len)):
        config = AuditConfig(
            net=spec.config.net,
            windows=spec.config.score.windows,
            scorer=Slot(),
            prequant=prequant,
            train_seq_len=seq_len,
        )
        assert audit_digest(one, Stage.SLOT) == digest(config, 12)


OUTSIDE = """
class Uniform:
    def score_stream(self, net, stream, windows, tally, gang):
        import torch
        tally.add([0], torch.full((1, stream.targets, {vocab}), 1 / {vocab}).log())

uniform = Uniform()
number = 3
"""


@pytest.mark.parametrize("name", ["Uniform", "uniform"])
def test_a_scorer_from_outside_is_taken_as_a_class_or_as_an_object(
    corpus_folder: Path, tmp_path: Path, name: str
) -> None:
    vocab = open_corpus(corpus_folder).vocab_size
    (tmp_path / f"outside_{name}_of_it.py").write_text(OUTSIDE.format(vocab=vocab), encoding="utf-8")
    scorer = OutsideScorer(name=f"outside_{name}_of_it:{name}", folder=str(tmp_path))
    _, data = audited(corpus_folder, tmp_path / "out", scorer=scorer)
    assert [row["rule"] for row in data["rules"] if not row["kept"]] == ["strict_prefix"]
    assert data["rules"][0]["evidence"]["largest_later_change_nats"] == 0
    assert "the changed text was not seen" in data["rules"][0]["because"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere_at_all:A", "nowhere_at_all"), ("json:nothing", "nothing"), ("math:pi", "no score_stream")],
)
def test_a_scorer_that_is_not_there_is_refused_by_name(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"scorer {name}.*{why}"):
        OutsideScorer(name=name).load()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def f(:", r"SyntaxError: .*invalid syntax"),
        (
            "class A:\n    def __init__(self, size): pass",
            r"TypeError: .*missing 1 required positional argument: 'size'",
        ),
        ("raise RuntimeError('of its own')", r"RuntimeError: of its own"),
    ],
    ids=["syntax", "constructor", "import"],
)
def test_a_scorer_that_cannot_be_made_is_refused_in_its_own_words(
    tmp_path: Path, text: str, why: str, request: pytest.FixtureRequest
) -> None:
    module = f"unmade_{request.node.callspec.id.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"scorer {module}:A: {why}"):
        OutsideScorer(name=f"{module}:A", folder=str(tmp_path)).load()


def test_a_module_that_another_of_its_name_hides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.py").write_text("class A:\n    def score_stream(self): pass", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Python imports .*site-packages.* as sentencepiece, not the file in "):
        OutsideScorer(name="sentencepiece:A", folder=str(tmp_path)).load()


RAISES = """
class A:
    def score_stream(self, net, stream, windows, tally, gang):
        raise KeyError("its own slip")
"""


def test_what_a_scorer_from_outside_dies_of_bears_its_name(corpus_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "raises_while_it_scores.py").write_text(RAISES, encoding="utf-8")
    scorer = OutsideScorer(name="raises_while_it_scores:A", folder=str(tmp_path))
    with pytest.raises(ValueError, match="scorer raises_while_it_scores:A: KeyError: 'its own slip'"):
        audited(corpus_folder, tmp_path / "out", scorer=scorer)


# The stream and its flips


def test_the_audited_part_has_a_first_window_whole_batches_and_a_shorter_tail() -> None:
    part = audited_part(Stream(tokens=np.arange(5000, dtype=np.uint16)), WINDOWS, 2)
    shapes = [(len(batch), batch[0].stop - batch[0].scored) for batch in WINDOWS.batches(part.targets, Gang())]
    assert shapes == [(1, 32), (4, 8), (4, 8), (1, 2)]
    short = Stream(tokens=np.arange(20, dtype=np.uint16))
    assert np.array_equal(audited_part(short, WINDOWS, 2).tokens, short.tokens)


def planned() -> tuple[Stream, FlipPlan]:
    """Tokens of a small alphabet, where the loss of target 70 is lowest and that of target 90 fell most."""
    tokens = np.random.default_rng(1).integers(0, 99, 5000).astype(np.uint16)
    tokens[60:66] = tokens[20:26]
    stream = audited_part(Stream(tokens=tokens), WINDOWS, 2)
    plain = np.full(stream.targets, 5.0)
    losses = plain - 0.01 * np.arange(stream.targets) / stream.targets
    plain[90], losses[70] = 9.0, 4.5
    plain[70] = 4.5
    return stream, flips_of(stream, WINDOWS, losses, plain)


def test_the_flips_that_are_always_made_have_a_place_of_every_kind_in_both_ways_and_repeat() -> None:
    stream, plan = planned()
    always = {flip.token for flip in plan.flips[: plan.needed]}
    assert all(always.intersection(tokens) for tokens in plan.kinds.values())
    assert {1, 32, stream.targets} <= always  # first and last of window 0, end of the tail
    batch = list(WINDOWS.batches(stream.targets, Gang()))[1]
    middle = batch[2]
    assert {middle.scored + 1, (middle.scored + middle.stop + 1) // 2, middle.stop} <= always
    assert any(batch[3].scored < token <= batch[3].stop for token in always)
    tail = list(WINDOWS.batches(stream.targets, Gang()))[-1][0]
    assert set(range(tail.scored + 1, tail.stop + 1)) <= always
    assert {flip.to_the_end for flip in plan.flips[: plan.needed]} == {False, True}
    assert StreamFlip(token=1, to_the_end=True) in plan.flips[: plan.needed]  # of the whole text
    assert len(set(plan.flips)) == len(plan.flips)
    assert planned()[1] == plan


def test_flips_are_also_where_losses_are_low_where_ngrams_come_again_and_at_rare_and_frequent_tokens() -> None:
    stream, plan = planned()
    assert plan.kinds["gained"][0] == 91
    assert plan.kinds["certain"][0] == 71
    assert plan.kinds["repeated"][:3] == [65, 64, 63]  # 6, 5 and 4 tokens that were there before
    counts = np.bincount(stream.tokens[1:])
    assert counts[stream.tokens[plan.kinds["rare"][0]]] == 1
    assert counts[stream.tokens[plan.kinds["frequent"][0]]] == counts.max()
    always = {flip.token for flip in plan.flips[: plan.needed]}
    assert {91, 71, 65, 64, 63, plan.kinds["rare"][0], plan.kinds["frequent"][0]} <= always


@pytest.mark.parametrize("to_the_end", [False, True])
@pytest.mark.parametrize("token", [0, 7, 49])
def test_a_flip_changes_its_token_to_another_of_the_stream_s_own_and_none_before(token: int, to_the_end: bool) -> None:
    stream = Stream(tokens=np.random.default_rng(1).choice([3, 8, 11, 250], 50).astype(np.uint16))
    changed = StreamFlip(token=token, to_the_end=to_the_end).of(stream).tokens
    assert np.array_equal(changed[:token], stream.tokens[:token])
    assert changed[token] != stream.tokens[token]
    assert set(changed.tolist()) <= set(stream.tokens.tolist())
    assert np.array_equal(changed[token + 1 :], stream.tokens[token + 1 :]) is not (to_the_end and token < 49)


def test_a_stream_of_one_token_over_and_over_can_be_flipped() -> None:
    stream = Stream(tokens=np.zeros(5, dtype=np.uint16))
    assert StreamFlip(token=2).of(stream).tokens.tolist() == [0, 0, 1, 0, 0]


# What is made smaller


def test_a_twin_keeps_vocabulary_and_techniques_is_small_and_always_the_same() -> None:
    for spec in (core(), tiny()):
        net = spec.config.net
        twin: Any = twin_config(net)
        kept = {name for name in asdict(net) if name not in ("layers", "dim", "heads", "kv_heads", "rope_dims")}
        assert {name: getattr(twin, name) for name in kept} == {name: getattr(net, name) for name in kept}
        assert twin.parameters < 100_000
    first, second = (build_twin(tiny().config.net).state_dict() for _ in range(2))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_the_distributions_of_a_twin_are_far_from_uniform_and_from_certain() -> None:
    net = build_twin(core().config.net)
    ids = torch.randint(0, 1024, (1, 200))
    with torch.no_grad():
        log_probs = net.logits(net.hidden(ids)).log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    assert 2 < entropy < 6  # log 1024 = 6.93


def test_all_weights_of_a_twin_are_unlike_what_they_start_with() -> None:
    for name, weight in build_twin(tiny().config.net).named_parameters():
        assert weight.std() > 0.01, name
        assert (weight == 0).sum() == 0, name


def test_long_procedures_are_shortened_and_it_is_said() -> None:
    windows = WindowConfig(seq_len=256, stride=192)
    scorer, same, batches, changes = scaled(
        Ttt(score_with=Slot()),
        windows,
    )
    assert (scorer, same, batches) == (Ttt(score_with=Slot(), chunk_tokens=32 * 192), windows, 2)
    assert changes == {"chunk_tokens": 32 * 192}
    scorer, _, _, changes = scaled(Slot(after=Ttt()), windows)
    assert scorer == Slot(after=Ttt(chunk_tokens=32 * 192))
    scorer, fewer, batches, changes = scaled(Slot(warm_start=1.0), windows)
    assert (scorer, fewer, batches, changes) == (
        Slot(warm_start=1.0),
        replace(windows, batch_seqs=8),
        9,
        {"batch_seqs": 8},
    )
    scorer, fewer, batches, changes = scaled(Ttt(score_with=Slot(warm_start=0.85)), windows)
    assert scorer == Ttt(score_with=Slot(warm_start=0.85), chunk_tokens=9 * 8 * 192)
    assert (fewer.batch_seqs, changes) == (8, {"batch_seqs": 8, "chunk_tokens": 9 * 8 * 192})
    assert fewer.seq_len + batches * 8 * 192 >= 2 * scorer.chunk_tokens
    assert LANES_OF_WARM_START == LANES
    assert scaled(Sliding(), windows) == (Sliding(), windows, 2, {})
    assert scaled(Sliding(), core().config.score.windows)[3] == {"batch_seqs": 4}
    endless = WindowConfig(seq_len=400_000, stride=300_000)
    assert scaled(Sliding(), endless)[1:] == (
        WindowConfig(seq_len=4096, stride=4096, batch_seqs=3),
        2,
        {"seq_len": 4096, "batch_seqs": 3},
    )


def test_the_audited_part_holds_two_sequences_of_what_adapts_first(corpus_folder: Path, tmp_path: Path) -> None:
    prequant = Prequant(lr=0.01, epochs=1, freeze_blocks=0, seq_len=80)
    windows = replace(WINDOWS, batch_seqs=2)
    _, data = audited(corpus_folder, tmp_path, scorer=Sliding(), windows=windows, prequant=prequant, train_seq_len=16)
    assert 160 <= data["targets"] < 160 + 2 * 8 + 8
    assert data["rules"][2]["evidence"]["trained"] == 160


# The text


def test_a_text_that_is_cut_inside_a_character_counts_up_to_the_one_before(tokenizer_file: Path) -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file))
    whole = tokenizer.encode("go 漢字")
    assert sum(map(tokenizer.is_byte, whole)) == 6
    for cut in range(7):
        tokens = [1, *tokenizer.encode("first"), 1, *whole[: len(whole) - cut]]
        (_, five), (targets, size) = decoded_texts(Stream(tokens=np.array(tokens, dtype=np.uint16)), tokenizer)
        left = [whole, whole[:-3], whole[:-6]][-(-cut // 3)]
        assert (five, targets, size) == (5, 1 + len(left), len(tokenizer.decode(left).encode()))


def test_text_that_does_not_begin_with_a_document_is_refused(tokenizer_file: Path) -> None:
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file))
    with pytest.raises(ValueError, match="begins with token 9, not with a BOS"):
        decoded_texts(Stream(tokens=np.array([9, 1, 9], dtype=np.uint16)), tokenizer)


def test_evidence_that_lacks_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="strict_prefix"):
        judged({})
    with pytest.raises(ValueError, match="flips"):
        judged({"strict_prefix": {}})
