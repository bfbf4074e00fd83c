"""The rules of the field as verdicts: each derived, each with the numbers it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from service.record.facts import Facts

SEEDS_NEEDED = 3
OFF_ONE = 1e-3
"""Float32 leaves some 1e-6 over; what a table that isn't normalised gains is far more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One rule, kept or broken."""

    rule: str
    kept: bool
    because: str
    """The numbers, as part of a sentence."""
    blocks: bool = True
    """Whether a record that breaks it is refused unless it says that it is none."""


def checks(facts: Facts) -> tuple[Check, ...]:
    """All rules; a broken one doesn't hide the next."""
    measured = (_artifact(facts), _train(facts), _eval(facts), _seeds(facts), _once(facts), _learned(facts))
    return (*measured, *_sums(facts), *_audit(facts))


def broken(facts: Facts) -> tuple[str, ...]:
    """The broken rules that keep a folder from being a record, with their numbers."""
    return tuple(f"{check.rule}: {check.because}" for check in checks(facts) if check.blocks and not check.kept)


def _artifact(facts: Facts) -> Check:
    worst = max(facts.seeds, key=facts.artifact_bytes)
    size, cap = facts.artifact_bytes(worst), facts.about.artifact_cap_bytes
    because = f"{size:,} bytes of code and model in the largest seed, {worst.seed}; the cap is {cap:,}"
    return Check(rule="artifact_under_cap", kept=size <= cap, because=because)


def _train(facts: Facts) -> Check:
    worst, cap = max(facts.seeds, key=lambda seed: seed.train_ms), facts.about.train_cap_s
    because = f"{worst.train_s:.3f} s of training in the slowest seed, {worst.seed}; the cap is {cap:g} s"
    return Check(rule="train_under_cap", kept=worst.train_s <= cap, because=because)


def _eval(facts: Facts) -> Check:
    worst, cap = max(facts.seeds, key=lambda seed: seed.eval_s), facts.about.eval_cap_s
    because = f"{worst.eval_s:.3f} s for all scores together in the slowest seed, {worst.seed}; the cap is {cap:g} s"
    return Check(rule="eval_under_cap", kept=worst.eval_s <= cap, because=because)


def _seeds(facts: Facts) -> Check:
    seeds = [str(seed.seed) for seed in facts.seeds]
    because = f"n = {len(seeds)} ({', '.join(seeds)}); a record needs {SEEDS_NEEDED}"
    return Check(rule="three_seeds", kept=len(seeds) >= SEEDS_NEEDED, because=because)


def _once(facts: Facts) -> Check:
    twice = {(seed.seed, stage): score.scored_twice for seed in facts.seeds for stage, score in seed.scores.items()}
    worst = max(twice, key=lambda place: twice[place])
    because = f"{twice[worst]} tokens were scored more than once in the worst of {len(twice)} scores"
    because += f" ({worst[1]} of seed {worst[0]})" if twice[worst] else ""
    return Check(rule="each_token_scored_once", kept=twice[worst] == 0, because=because)


def _learned(facts: Facts) -> Check:
    """From what each score noted while it ran; the audit says the same of a small network, and why."""
    exposed = {(seed.seed, stage): score.exposed for seed in facts.seeds for stage, score in seed.scores.items()}
    worst = max(exposed, key=lambda place: exposed[place])
    headline = any(number for (_, stage), number in exposed.items() if stage == facts.about.headline)
    because = f"{exposed[worst]} tokens were scored after they or later ones had been learned from"
    because += f" in the worst of {len(exposed)} scores"
    if exposed[worst]:
        because += f" ({worst[1]} of seed {worst[0]}), "
        because += "and the headline is one of those that did" if headline else "but the headline did not"
    return Check(rule="no_token_learned_before_scored", kept=exposed[worst] == 0, because=because, blocks=headline)


def _sums(facts: Facts) -> tuple[Check, ...]:
    """Of every distribution of the scored passes; the audit looks at a small network's. None in an older record."""
    off = {
        (seed.seed, stage): score.off_one
        for seed in facts.seeds
        for stage, score in seed.scores.items()
        if score.off_one is not None
    }
    if not off:
        return ()
    worst = max(off, key=lambda place: off[place])
    because = f"the probabilities of a token sum to 1 within {off[worst]:.1e} in the worst of {len(off)} scores"
    because += f" ({worst[1]} of seed {worst[0]}); {OFF_ONE:g} is allowed"
    return (Check(rule="probabilities_sum_to_one", kept=off[worst] <= OFF_ONE, because=because),)


def _audit(facts: Facts) -> tuple[Check, ...]:
    """The audit of the headline's scorer."""
    return tuple(Check(rule=rule.rule, kept=rule.kept, because=rule.because) for rule in facts.audit)
