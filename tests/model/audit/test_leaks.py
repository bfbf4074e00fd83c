"""Every planted leak is found by the rule it breaks, and every honest scorer passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import model.score.slot as slot_module
from model.adapt.lora import DocumentLora
from model.adapt.prequant import Prequant
from model.adapt.ttt import Ttt
from model.audit.flips import audited_part
from model.audit.passes import Audited, gather_evidence
from model.audit.rules import RULES, AuditRule, judged, strict_prefix
from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.scorer import Scorer
from model.score.sliding import Sliding, hidden_states, log_probs
from model.score.slot import Slot
from model.score.stream import Stream, window_rows
from model.score.windows import Window, WindowConfig

NetFactory = Callable[..., GPT]
VOCAB = 40
WINDOWS = WindowConfig(seq_len=16, stride=6, batch_seqs=4)
STREAM = audited_part(Stream(tokens=np.random.default_rng(0).integers(0, VOCAB, 500).astype(np.uint16)), WINDOWS, 2)


@dataclass(frozen=True)
class Cache:
    """An honest scorer: the network's logits, with a bonus for each time a token stands in the window's context."""

    def learned(self, stream: Stream, batch: Sequence[Window], window: Window) -> Any:
        """The tokens that the bonus counts."""
        return stream.tokens[1:][window.start : window.scored]

    def finish(self, logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
        return logits_BSV.log_softmax(-1)

    @torch.no_grad()
    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        for batch in windows.batches(stream.targets, gang):
            inputs, targets = window_rows(stream, batch, gang.device)
            context = batch[0].context
            logits = log_probs(net, hidden_states(net, inputs, context))
            learned = [self.learned(stream, batch, window).astype(np.int64) for window in batch]
            bonus = torch.from_numpy(np.stack([np.bincount(ids, minlength=VOCAB) for ids in learned])).float()
            tally.add([w.scored for w in batch], self.finish(logits + 0.5 * bonus[:, None], targets[:, context:]))


@dataclass(frozen=True)
class MaskOffByOne(Cache):
    """The context lets in the first target that is scored."""

    def learned(self, stream: Stream, batch: Sequence[Window], window: Window) -> Any:
        return stream.tokens[1:][window.start : window.scored + 1]


@dataclass(frozen=True)
class SharedByTheBatch(Cache):
    """One table for all windows of a batch, from the context of each (#1306)."""

    def learned(self, stream: Stream, batch: Sequence[Window], window: Window) -> Any:
        return np.concatenate([stream.tokens[1:][w.start : w.scored] for w in batch])


@dataclass(frozen=True)
class FromTheWindowAfter(Cache):
    """State carried the wrong way: each window uses the context of the next one in its batch."""

    def learned(self, stream: Stream, batch: Sequence[Window], window: Window) -> Any:
        after = batch[min(batch.index(window) + 1, len(batch) - 1)]
        return stream.tokens[1:][after.start : after.scored]


@dataclass(frozen=True)
class ReadsTheTarget(Cache):
    """A bias towards the very token that is scored; sums to 1 all the same."""

    def finish(self, logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
        bonus = torch.nn.functional.one_hot(targets_BS, VOCAB) * 0.01
        return (logits_BSV + bonus).log_softmax(-1)


@dataclass(frozen=True)
class LooksOneAhead(Cache):
    """A bias towards the token after the one that is scored."""

    def finish(self, logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
        bonus = torch.nn.functional.one_hot(targets_BS.roll(-1, 1), VOCAB) * 0.01
        bonus[:, -1] = 0
        return (logits_BSV + bonus).log_softmax(-1)


@dataclass(frozen=True)
class DoesNotSumToOne(Cache):
    """The bonus is added to log-probabilities as they are (#886)."""

    def finish(self, logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
        return logits_BSV


@dataclass(frozen=True)
class LeavesOutAToken(Cache):
    """A distribution over one token less."""

    def finish(self, logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
        return logits_BSV[..., :-1].log_softmax(-1)


@dataclass(frozen=True)
class GivesNoNumbers(Cache):
    """NaN for one token that is never a target of its row."""

    def finish(self, logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
        broken = logits_BSV.log_softmax(-1)
        broken[0, 0, (int(targets_BS[0, 0]) + 1) % VOCAB] = torch.nan
        return broken


@dataclass(frozen=True)
class TailTwice(Cache):
    """The last window comes again (the field's scripts before #1394 list it up to 31 times)."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        super().score_stream(net, stream, windows, tally, gang)
        last = windows.plan(stream.targets)[-1]
        inputs, _ = window_rows(stream, [last], gang.device)
        tally.add([last.scored], log_probs(net, hidden_states(net, inputs, last.context)))


@dataclass(frozen=True)
class TailNever(Cache):
    """The last token is left out."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        super().score_stream(net, Stream(tokens=stream.tokens[:-1]), windows, tally, gang)


@dataclass(frozen=True)
class RemembersThePassBefore(Cache):
    """A table that lives as long as the scorer: the second time it knows the text."""

    known: list[int] = field(default_factory=list)

    def learned(self, stream: Stream, batch: Sequence[Window], window: Window) -> Any:
        before = np.array(self.known, dtype=np.int64)
        if window.stop == stream.targets:
            self.known.extend(stream.tokens[1:].tolist())
        return np.concatenate([super().learned(stream, batch, window), before])


@dataclass(frozen=True)
class LeavesTheWeightsChanged(Cache):
    """Restores all but one weight."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        super().score_stream(net, stream, windows, tally, gang)
        with torch.no_grad():
            net.embedding[3, 3] += 1e-3


@dataclass(frozen=True)
class LearnsInSecret(Cache):
    """Trains on the whole stream first, says nothing of it, and restores the weights."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        before = net.embedding.detach().clone()
        inputs, targets = window_rows(stream, [Window(start=0, scored=0, stop=stream.targets)], gang.device)
        (gradient,) = torch.autograd.grad(net.loss(inputs, targets), [net.embedding])
        with torch.no_grad():
            net.embedding -= 0.1 * gradient
        super().score_stream(net, stream, windows, tally, gang)
        with torch.no_grad():
            net.embedding.copy_(before)


@dataclass(frozen=True)
class FlattersItsLoss(Cache):
    """Reaches into the tally and lowers what is there."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        super().score_stream(net, stream, windows, tally, gang)
        tally.nats *= 0.99


@dataclass(frozen=True)
class MakesTheTextLonger(Cache):
    """Reaches into the tally and raises the bytes of one token."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        super().score_stream(net, stream, windows, tally, gang)
        tally.bytes_per_target[5] += 1


@dataclass(frozen=True)
class TiltsWhatCameBefore(Cache):
    """Adds to the very target whose 5-gram was seen before, and normalises (the first form of #1420)."""

    n: int = 5

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        tokens = stream.tokens.tolist()
        for batch in windows.batches(stream.targets, gang):
            inputs, _ = window_rows(stream, batch, gang.device)
            said = log_probs(net, hidden_states(net, inputs, batch[0].context))
            for row, window in enumerate(batch):
                for i in range(max(self.n, window.scored), window.stop):
                    gram = tokens[i + 2 - self.n : i + 2]
                    if any(tokens[j : j + self.n] == gram for j in range(i + 2 - self.n)):
                        said[row, i - window.scored, tokens[i + 1]] += 8
            tally.add([w.scored for w in batch], said.log_softmax(-1))


@dataclass(frozen=True)
class TiltsOneToken(Cache):
    """Reads its target where that is one of 40 tokens."""

    def finish(self, logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
        bonus = 8 * torch.nn.functional.one_hot(targets_BS, VOCAB) * (targets_BS == int(STREAM.tokens[30]))[..., None]
        return (logits_BSV + bonus).log_softmax(-1)


@dataclass(frozen=True)
class ReadsTheLastBatch(Cache):
    """Only the last batch, a shorter window, reads its targets."""

    def finish(self, logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
        short = targets_BS.shape[1] < WINDOWS.stride
        return (logits_BSV + 5 * short * torch.nn.functional.one_hot(targets_BS, VOCAB)).log_softmax(-1)


SAID: dict[int, Tensor] = {}


@dataclass(frozen=True)
class RemembersByWindow(Cache):
    """Reads its targets in the first pass of the process and says the same ever after, whatever the text is."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        for batch in windows.batches(stream.targets, gang):
            inputs, targets = window_rows(stream, batch, gang.device)
            context = batch[0].context
            if batch[0].start not in SAID:
                said = log_probs(net, hidden_states(net, inputs, context))
                tilt = 5 * torch.nn.functional.one_hot(targets[:, context:], VOCAB)
                SAID[batch[0].start] = (said + tilt).log_softmax(-1)
            tally.add([w.scored for w in batch], SAID[batch[0].start])


@dataclass(frozen=True)
class SwapsTheTargets(Cache):
    """Tells the tally that what is most probable was what came."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        tally.targets = np.full_like(tally.targets, 7)
        super().score_stream(net, stream, windows, tally, gang)


@dataclass(frozen=True)
class CountsTooOften(Cache):
    """Divides each loss by ten."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        super().score_stream(net, stream, windows, tally, gang)
        tally.times *= 10


@dataclass(frozen=True)
class SwapsTheStream(Cache):
    """Leaves another text in the stream it was given."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        super().score_stream(net, stream, windows, tally, gang)
        object.__setattr__(stream, "tokens", np.full_like(stream.tokens, 7))


@dataclass(frozen=True)
class WritesIntoTheStream(Cache):
    """Makes the text easier before it is scored."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        stream.tokens[:] = 7


def audit(net: GPT, scorer: Scorer, windows: WindowConfig = WINDOWS, **changes: Any) -> dict[str, AuditRule]:
    """The verdicts over 55 or so targets of a byte each; the 5-gram from token 10 comes again at token 40."""
    tokens = np.random.default_rng(0).integers(0, VOCAB, 500).astype(np.uint16)
    tokens[40:45] = tokens[10:15]
    stream = audited_part(Stream(tokens=tokens), windows, 2)
    audited = Audited(
        scorer=scorer,
        windows=windows,
        net=net,
        stream=stream,
        bytes_per_target=np.ones(stream.targets, dtype=np.int64),
        vocab_size=VOCAB,
    )
    texts = [(20, 20), (stream.targets - 20, stream.targets - 20)]
    evidence = gather_evidence(replace(audited, **changes), texts, 0.0, lambda _: None)
    return {rule.rule: rule for rule in judged(evidence)}


def broken(rules: dict[str, AuditRule]) -> set[str]:
    assert list(rules) == list(RULES)
    return {name for name, rule in rules.items() if not rule.kept}


TTT = Ttt(chunk_tokens=24, lr=0.1, epochs=2)
HONEST: dict[str, Scorer] = {
    "sliding": Sliding(),
    "a cache over the context": Cache(),
    "context SLOT of each window": Slot(steps=4, lr=0.05),
    "context SLOT that starts from eight batches before": Slot(steps=4, lr=0.05, warm_start=0.85),
    "score-first TTT": TTT,
    "SLOT inside score-first TTT": replace(TTT, score_with=Slot(steps=4, lr=0.05)),
    "a low-rank adapter for each document": DocumentLora(chunk_tokens=8, rank=2, lr=0.1),
}


@pytest.mark.parametrize("scorer", HONEST.values(), ids=HONEST)
def test_an_honest_scorer_is_clean_and_does_not_change_by_a_bit(random_net: NetFactory, scorer: Scorer) -> None:
    rules = audit(random_net(), scorer)
    assert broken(rules) == set()
    evidence = rules["strict_prefix"].evidence
    assert evidence["largest_change_nats"] == rules["single_pass"].evidence["second_pass_change_nats"] == 0
    assert evidence["largest_later_change_nats"] > 0.1
    assert evidence["kinds"] == evidence["kinds_covered"] == len([name for name in evidence if name[:3] == "at_"]) > 12
    assert evidence["later_targets_unmoved"] == 0


LEAKS: dict[str, tuple[Scorer, set[str]]] = {
    "an off-by-one mask": (MaskOffByOne(), {"strict_prefix"}),
    "a table shared by the batch": (SharedByTheBatch(), {"strict_prefix"}),
    "state from the window after": (FromTheWindowAfter(), {"strict_prefix"}),
    "a bias that reads the target": (ReadsTheTarget(), {"strict_prefix"}),
    "one token ahead": (LooksOneAhead(), {"strict_prefix"}),
    "a tilt where a 5-gram comes again": (TiltsWhatCameBefore(), {"strict_prefix"}),
    "a tilt of one token": (TiltsOneToken(), {"strict_prefix"}),
    "a last batch that reads its targets": (ReadsTheLastBatch(), {"strict_prefix"}),
    "what was said of another text": (RemembersByWindow(), {"strict_prefix"}),
    "other targets": (SwapsTheTargets(), {"full_distribution"}),
    "losses divided by more": (CountsTooOften(), {"full_distribution"}),
    "another text left behind": (SwapsTheStream(), {"full_distribution"}),
    "learning in secret": (LearnsInSecret(), {"strict_prefix"}),
    "a table that does not normalise": (DoesNotSumToOne(), {"full_distribution"}),
    "a table that lacks a token": (LeavesOutAToken(), {"full_distribution"}),
    "no numbers": (GivesNoNumbers(), {"full_distribution", "strict_prefix", "single_pass"}),
    "a flattered loss": (FlattersItsLoss(), {"full_distribution"}),
    "a tail scored twice": (TailTwice(), {"single_pass"}),
    "a tail never scored": (TailNever(), {"single_pass"}),
    "state carried across passes": (RemembersThePassBefore(), {"single_pass"}),
    "weights left changed": (LeavesTheWeightsChanged(), {"weights_restored"}),
    "a longer text": (MakesTheTextLonger(), {"byte_denominator"}),
    "SLOT on the scored positions": (
        Slot(loss_on="scored", steps=4, lr=0.05),
        {"strict_prefix", "score_before_update"},
    ),
    "SLOT on all positions, shared": (
        Slot(loss_on="all", per="batch", bias=False, steps=4, lr=0.05),
        {"strict_prefix", "score_before_update"},
    ),
    "context SLOT shared by the batch": (
        Slot(per="batch", bias=False, steps=4, lr=0.05),
        {"strict_prefix", "score_before_update"},
    ),
    "SLOT after TTT that keeps its weights": (
        Slot(steps=4, lr=0.05, after=replace(TTT, keep_weights=True)),
        {"strict_prefix", "score_before_update", "weights_restored"},
    ),
}


@pytest.mark.parametrize(("scorer", "rules"), LEAKS.values(), ids=LEAKS)
def test_a_planted_leak_is_found_by_the_rule_it_breaks(random_net: NetFactory, scorer: Scorer, rules: set[str]) -> None:
    assert broken(audit(random_net(), scorer)) == rules


def test_a_byte_table_that_miscounts_is_found_also_where_its_sum_is_right(random_net: NetFactory) -> None:
    bytes_per_target = np.ones(STREAM.targets, dtype=np.int64)
    bytes_per_target[[3, 30]] = (2, 0)
    rules = audit(random_net(), Sliding(), bytes_per_target=bytes_per_target)
    assert broken(rules) == {"byte_denominator"}
    evidence = rules["byte_denominator"].evidence
    assert evidence["counted_bytes"] == evidence["decoded_bytes"]
    assert evidence["documents_wrong"] == 2


def test_scored_slot_leaks_inside_its_own_window(random_net: NetFactory) -> None:
    rules = audit(random_net(), Slot(loss_on="scored", steps=4, lr=0.05))
    worst = rules["strict_prefix"].evidence
    assert (worst["flipped_batch"], worst["flipped_window"]) == (worst["changed_batch"], worst["changed_window"])
    assert worst["tokens_ahead"] < WINDOWS.seq_len
    assert worst["leaking_flips"] == worst["flips"]
    exposure = rules["score_before_update"].evidence
    assert exposure["exposed"] == exposure["scored"] == STREAM.targets


def test_a_shared_delta_leaks_from_one_window_of_a_batch_to_another(random_net: NetFactory) -> None:
    rules = audit(random_net(), Slot(per="batch", bias=False, steps=4, lr=0.05))
    worst = rules["strict_prefix"].evidence
    assert worst["flipped_batch"] == worst["changed_batch"]
    assert worst["changed_window"] <= worst["flipped_window"]
    assert worst["largest_change_nats"] > 0.01
    alone = audit(random_net(), Slot(per="batch", bias=False, steps=4, lr=0.05), replace(WINDOWS, batch_seqs=1))
    assert broken(alone) == set()


def seen_by_the_public_harness(net: GPT, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> float:
    """#1240: one window, batch size 1; flip the target (and not the token as later input) of one scored position and
    look at the losses of the positions before it. The largest change."""
    windows = replace(WINDOWS, batch_seqs=1)
    stream = Stream(tokens=STREAM.tokens[: WINDOWS.seq_len + WINDOWS.stride + 1])
    window = windows.plan(stream.targets)[-1]

    def nats(flipped: int | None) -> Tensor:
        def rows(stream: Stream, batch: list[Window], device: torch.device) -> tuple[Tensor, Tensor]:
            inputs, targets = window_rows(stream, batch, device)
            if flipped is not None and batch == [window]:
                targets = targets.clone()
                targets[0, flipped - window.start] = (targets[0, flipped - window.start] + 7) % VOCAB
            return inputs, targets

        monkeypatch.setattr(slot_module, "window_rows", rows)
        tally = Tally(stream, np.ones(stream.targets, dtype=np.int64), Gang())
        slot.score_stream(net, stream, windows, tally, Gang())
        return tally.nats

    before = nats(None)
    scored = range(window.scored + 1, window.stop)
    return max(float((nats(p) - before)[window.scored : p].abs().max()) for p in scored)


def test_the_public_harness_sees_scored_slot_but_not_a_shared_delta_on_context_and_the_audit_sees_both(
    random_net: NetFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, shared = Slot(loss_on="scored", steps=4, lr=0.05), Slot(per="batch", bias=False, steps=4, lr=0.05)
    assert seen_by_the_public_harness(random_net(), scored, monkeypatch) > 1e-4
    assert seen_by_the_public_harness(random_net(), shared, monkeypatch) == 0
    monkeypatch.undo()
    assert "strict_prefix" in broken(audit(random_net(), scored))
    assert "strict_prefix" in broken(audit(random_net(), shared))


def test_prequant_has_trained_on_tokens_that_nothing_had_scored(random_net: NetFactory) -> None:
    rules = audit(random_net(), Sliding(), adapter=Prequant(lr=0.01, epochs=1, freeze_blocks=0), train_seq_len=8)
    assert broken(rules) == {"strict_prefix", "score_before_update"}
    exposure = rules["score_before_update"].evidence
    assert exposure["trained"] == exposure["exposed"] == STREAM.targets // 8 * 8
    # From the end of the stream to its beginning, which no window does.
    assert rules["strict_prefix"].evidence["leaking_flips"] > rules["strict_prefix"].evidence["flips"] // 2


def test_what_the_scorer_did_to_weights_and_to_itself_does_not_spoil_the_next_pass(random_net: NetFactory) -> None:
    net = random_net()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    rules = audit(net, LeavesTheWeightsChanged())
    assert rules["strict_prefix"].evidence["largest_change_nats"] == 0
    assert set(before) == set(net.state_dict())


def test_the_text_cannot_be_written_to(random_net: NetFactory) -> None:
    with pytest.raises(ValueError, match="read-only"):
        audit(random_net(), WritesIntoTheStream())


def test_time_adds_places_but_takes_no_kind_of_them_away(random_net: NetFactory) -> None:
    audited = Audited(
        scorer=Sliding(),
        windows=WINDOWS,
        net=random_net(),
        stream=STREAM,
        bytes_per_target=np.ones(STREAM.targets, dtype=np.int64),
        vocab_size=VOCAB,
    )
    found = [
        gather_evidence(audited, [(STREAM.targets, STREAM.targets)], budget_s, lambda _: None)["strict_prefix"]
        for budget_s in (0.0, 1000.0)
    ]
    assert found[0]["kinds_covered"] == found[1]["kinds_covered"] == found[0]["kinds"]
    assert 15 <= found[0]["flips"] < found[1]["flips"]
    assert found[0]["places"] < found[1]["places"]


def test_a_kind_of_place_that_was_not_tried_is_no_verdict() -> None:
    evidence = dict.fromkeys(("flips", "places", "kinds", "positions_compared", "later_targets"), 9.0)
    evidence |= dict.fromkeys(("leaking_flips", "largest_change_nats", "later_targets_unmoved"), 0.0)
    evidence |= {"largest_later_change_nats": 1.0}
    assert strict_prefix(evidence | {"kinds_covered": 9.0})[0]
    assert not strict_prefix(evidence | {"kinds_covered": 8.0})[0]
