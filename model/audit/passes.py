"""The audit itself: passes of one scorer over a stream and over changed copies of it, and what they show.

Each pass starts from the same weights, the same random numbers and a fresh copy of the scorer; only the second pass
takes the first one's scorer again, to see whether it remembers.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.adapt.stage import Adapter
from model.audit.flips import FlipPlan, StreamFlip, flips_of
from model.audit.probe import Probe
from model.audit.rules import CHANGE_TOLERANCE_NATS, UNBOUNDED, Evidence
from model.audit.twin import weight_digests
from model.gang import Gang
from model.net.gpt import GPT
from model.score.scorer import Scorer
from model.score.sliding import Sliding
from model.score.stream import Stream
from model.score.windows import WindowConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Silent(Gang):
    """A gang of one that prints nothing: there are dozens of passes."""

    def log(self, line: str) -> None:
        """Say nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Audited:
    """What is audited, on what."""

    scorer: Scorer
    windows: WindowConfig
    net: GPT
    stream: Stream
    bytes_per_target: NDArray[np.int64]
    vocab_size: int
    adapter: Adapter | None = None
    """Changes the network on the same stream before it is scored with, as ``adapt.prequant`` does."""
    train_seq_len: int = 0

    def play(self, scorer: Scorer, stream: Stream, base: Probe | None = None) -> tuple[Probe, int]:
        """One pass with the weights as they are; the probe, and how many tensors scoring left changed."""
        torch.manual_seed(0)
        # Immutable, as a memory map of the split is: who writes to it fails here and not in a scored run.
        stream = Stream(tokens=np.frombuffer(stream.tokens.tobytes(), dtype=stream.tokens.dtype))
        probe = Probe(stream, self.bytes_per_target.copy(), self.vocab_size, base)
        if self.adapter is not None:
            self.adapter.adapt(self.net, stream, self.train_seq_len, probe.exposure, Silent())
        before = weight_digests(self.net)
        scorer.score_stream(self.net, stream, self.windows, probe, Silent())
        after = weight_digests(self.net)
        probe.finish()
        return probe, sum(after.get(name) != before.get(name) for name in before | after)


def gather_evidence(
    audited: Audited, texts: list[tuple[int, int]], budget_s: float, tell: Callable[[str], None]
) -> dict[str, Evidence]:
    """The evidence for every rule of :data:`model.audit.rules.RULES`.

    ``texts`` are the documents of the stream: how many targets and how many bytes of text each has. Flips end when
    ``budget_s`` of this process's CPU time is used up, but not before there was one at every kind of place: what is
    found must not depend on what else the machine does.
    """
    started = time.process_time()
    weights = copy.deepcopy(audited.net.state_dict())
    pristine = copy.deepcopy(audited.scorer)

    base, changed = audited.play(audited.scorer, audited.stream)
    audited.net.load_state_dict(weights)
    again, _ = audited.play(audited.scorer, audited.stream, base)
    pass_s = (time.process_time() - started) / 2
    audited.net.load_state_dict(weights)
    plain, _ = audited.play(Sliding(), audited.stream)
    tell(f"audit: {base.distributions:,} distributions in {base.calls} batches, {pass_s:.1f} s a pass")

    plan = flips_of(audited.stream, audited.windows, base.losses.numpy(), plain.losses.numpy())
    seen = FlipEvidence(base, plan)
    for number, flip in enumerate(plan.flips):
        if number >= plan.needed and time.process_time() - started + pass_s > budget_s:
            break
        audited.net.load_state_dict(weights)
        probe, _ = audited.play(copy.deepcopy(pristine), flip.of(audited.stream), base)
        seen.take(flip, probe)
    tell(f"audit: {seen.flips} of {len(plan.flips)} flips in {time.process_time() - started:.1f} s of CPU time")
    return {
        "strict_prefix": seen.evidence(),
        "full_distribution": _distributions(base),
        "score_before_update": _exposure(base),
        "single_pass": _passes(base, again),
        "byte_denominator": _bytes(base, texts),
        "weights_restored": {"tensors": len(weights), "tensors_changed": changed},
    }


class FlipEvidence:
    """The worst that a change did to what was said of the tokens before it."""

    def __init__(self, base: Probe, plan: FlipPlan) -> None:
        self.base, self.plan = base, plan
        self.flips = self.leaking = self.compared = 0
        self.places: set[int] = set()
        self.reached, self.moved = np.zeros(len(base.seen), dtype=bool), np.zeros(len(base.seen), dtype=bool)
        """Targets after a change of every token, and those whose distribution any earlier change moved."""
        self.largest, self.later = 0.0, 0.0
        self.worst: tuple[StreamFlip, int] | None = None

    def take(self, flip: StreamFlip, probe: Probe) -> None:
        """Target i is token i + 1, so that a change of token j must leave targets 0 .. j - 1 as they were."""
        before, after = probe.changes[: flip.token], probe.changes[flip.token :]
        self.flips, self.compared = self.flips + 1, self.compared + len(before)
        self.places.add(flip.token)
        self.later = max(self.later, float(after.max(initial=0.0)))
        self.reached[flip.token :] |= flip.to_the_end
        self.moved[flip.token :] |= after > 0
        largest = float(before.max(initial=0.0))
        self.leaking += largest > CHANGE_TOLERANCE_NATS
        if self.worst is None or largest > self.largest:
            self.largest, self.worst = largest, (flip, int(before.argmax()))

    def evidence(self) -> Evidence:
        """All of it as numbers; where the worst change was only counts if there was one."""
        at = {kind: len(self.places.intersection(tokens)) for kind, tokens in self.plan.kinds.items()}
        numbers = {
            "flips": self.flips,
            "places": len(self.places),
            "kinds": len(at),
            "kinds_covered": sum(places > 0 for places in at.values()),
            **{f"at_{kind}": places for kind, places in at.items()},
            "positions_compared": self.compared,
            "leaking_flips": self.leaking,
            "tolerance_nats": CHANGE_TOLERANCE_NATS,
            "largest_change_nats": self.largest,
            "largest_later_change_nats": self.later,
            "later_targets": int(self.reached.sum()),
            "later_targets_unmoved": int((self.reached & ~self.moved).sum()),
        }
        if self.worst is None or self.largest == 0:
            return numbers
        flip, target = self.worst
        return numbers | {
            "flipped_token": flip.token,
            "flipped_to_the_end": int(flip.to_the_end),
            "flipped_batch": int(self.base.batch_of[flip.token - 1]),
            "flipped_window": int(self.base.window_of[flip.token - 1]),
            "changed_token": target + 1,
            "tokens_ahead": flip.token - target - 1,
            "changed_batch": int(self.base.batch_of[target]),
            "changed_window": int(self.base.window_of[target]),
        }


def _distributions(base: Probe) -> Evidence:
    """The tally's losses must be those of the distributions it was given: a scorer can reach into it."""
    difference = float((base.nats.cpu() - base.losses).abs().nan_to_num(nan=UNBOUNDED, posinf=UNBOUNDED).max())
    unlike = base.not_numbers > 0 or not torch.isfinite(base.losses).all()
    return {
        "distributions": base.distributions,
        "vocab_size": base.vocab_size,
        "narrowest": base.narrowest,
        "widest": base.widest,
        "not_numbers": base.not_numbers,
        "largest_log_sum_nats": base.largest_log_sum,
        "arrays_changed": base.arrays_changed,
        # A loss without bound has no difference to itself.
        "largest_loss_difference_nats": 0.0 if unlike else min(difference, UNBOUNDED),
    }


def _exposure(base: Probe) -> Evidence:
    events = base.exposure.events
    trained = np.zeros(len(base.seen), dtype=bool)
    for event in events:
        if event.kind == "trained":
            trained[event.first : event.stop] = True
    return {
        "scored": int((base.seen > 0).sum()),
        "exposed": base.exposure.exposed,
        "trainings": sum(event.kind == "trained" for event in events),
        "trained": int(trained.sum()),
        "events": len(events),
    }


def _passes(base: Probe, again: Probe) -> Evidence:
    return {
        "targets": len(base.seen),
        "scored_once": int((base.seen == 1).sum()),
        "scored_again": int((base.seen > 1).sum()),
        "never_scored": int((base.seen == 0).sum()),
        "second_pass_change_nats": float(again.changes.max(initial=0.0)),
    }


def _bytes(base: Probe, texts: list[tuple[int, int]]) -> Evidence:
    """Taken from the tally after the pass, as the score is."""
    stops = np.cumsum([targets for targets, _ in texts])
    starts = np.concatenate([[0], stops[:-1]])
    counted = [int(base.bytes_per_target[a:b].sum()) for a, b in zip(starts, stops, strict=True)]
    return {
        "documents": len(texts),
        "documents_wrong": sum(number != size for number, (_, size) in zip(counted, texts, strict=True)),
        "targets": int(stops[-1]),
        "counted_bytes": sum(counted),
        "decoded_bytes": sum(size for _, size in texts),
    }
