"""The rules a scorer must keep, each a verdict over numbers alone. Standard library only.

C1 to C4 of openai/parameter-golf #1017, the byte count (#897), and weights that stay what was shipped. Who reads a
verdict can give it again from its evidence; ``service.record`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

AUDIT_FILE = "audit.json"
"""What an audit leaves behind: ``clean``, ``rules`` with their evidence, and what was audited."""
CHANGE_TOLERANCE_NATS = 1e-6
"""Two units of the last place of a float32 near -8. A CPU repeats a pass bit for bit, so an honest scorer shows 0."""
SUM_TOLERANCE_NATS = 1e-4
"""Of |log sum p|: what float32 leaves over some thousand terms."""
UNBOUNDED = 1e9
"""Stands in evidence for a change without bound: to a probability of 0, to no number, to a score that isn't there."""

UNMOVED = 0.1
"""So large a part of what follows a change may be as it was; more, and the changed text was not what was scored."""

Evidence = Mapping[str, float]
"""Numbers by name; whole ones are counts, ``*_nats`` are differences of log-probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRule:
    """One rule, kept or broken."""

    rule: str
    kept: bool
    evidence: Evidence
    because: str
    """The numbers, as a sentence."""


def judged(evidence: Mapping[str, Evidence]) -> tuple[AuditRule, ...]:
    """Every rule over its evidence, in the order of :data:`RULES`; a broken one doesn't hide the next.

    Raises:
        ValueError: a rule has no evidence, or lacks a number.
    """
    rules = []
    for name, judge in RULES.items():
        try:
            kept, because = judge(evidence[name])
        except KeyError as error:
            raise ValueError(f"the audit has no evidence {error} for {name}") from error
        rules.append(AuditRule(rule=name, kept=kept, evidence=dict(evidence[name]), because=because))
    return tuple(rules)


def strict_prefix(e: Evidence) -> tuple[bool, str]:
    """C1: what is said of a token depends on the tokens before it and on nothing else."""
    tried = (
        f"{e['flips']:.0f} changed streams ({e['places']:.0f} places of {e['kinds_covered']:.0f} of {e['kinds']:.0f} "
        "kinds, one token or all from there)"
    )
    leaked = f"{e['leaking_flips']:.0f} of {tried} leaked"
    if e["largest_change_nats"] <= CHANGE_TOLERANCE_NATS:
        compared = f"{e['positions_compared']:,.0f} distributions of tokens up to the change"
        because = f"{leaked}: {compared} differ by {e['largest_change_nats']:.9f} nats at most"
        unmoved = e["later_targets_unmoved"]
        if e["largest_later_change_nats"] == 0 or unmoved > UNMOVED * e["later_targets"]:
            # A cache across passes: whatever it holds, it was not made from the text that was changed.
            return False, (
                f"the changed text was not seen: {unmoved:,.0f} of {e['later_targets']:,.0f} distributions after a "
                f"change of all tokens are as before; {because}"
            )
        because += (
            f", while of {e['later_targets']:,.0f} later ones {unmoved:,.0f} stay and the others differ by up to "
            f"{e['largest_later_change_nats']:.6f}"
        )
        return 0 < e["kinds"] == e["kinds_covered"], because
    what = "every token from" if e["flipped_to_the_end"] else "token"
    where = f"token {e['changed_token']:.0f}, {e['tokens_ahead']:.0f} before it"
    if e["tokens_ahead"] == 0:
        where = "that token itself"
    change = "without bound" if e["largest_change_nats"] >= UNBOUNDED else f"by {e['largest_change_nats']:.6f} nats"
    return False, (
        f"changing {what} {e['flipped_token']:.0f} (batch {e['flipped_batch']:.0f}, window {e['flipped_window']:.0f}) "
        f"changed what is said of {where} (batch {e['changed_batch']:.0f}, window {e['changed_window']:.0f}) {change}; "
        f"{leaked}"
    )


def full_distribution(e: Evidence) -> tuple[bool, str]:
    """C2: every token is scored by a distribution over the whole vocabulary that sums to 1."""
    whole = e["narrowest"] == e["widest"] == e["vocab_size"]
    finite = e["not_numbers"] == 0 and e["largest_log_sum_nats"] <= SUM_TOLERANCE_NATS
    looked_up = e["largest_loss_difference_nats"] <= CHANGE_TOLERANCE_NATS and e["arrays_changed"] == 0
    because = (
        f"{e['distributions']:,.0f} distributions over {e['narrowest']:,.0f} to {e['widest']:,.0f} of "
        f"{e['vocab_size']:,.0f} tokens, |log sum p| at most {e['largest_log_sum_nats']:.9f}, "
        f"{e['not_numbers']:.0f} not numbers, losses {e['largest_loss_difference_nats']:.9f} nats off them at most, "
        f"{e['arrays_changed']:.0f} of the tally's and the stream's arrays changed by the scorer"
    )
    return e["distributions"] > 0 and whole and finite and looked_up, because


def score_before_update(e: Evidence) -> tuple[bool, str]:
    """C3: nothing that scores a token has learned from it, or from a later one."""
    because = (
        f"{e['exposed']:,.0f} of {e['scored']:,.0f} tokens were scored after they or later ones had been learned from; "
        f"weights were trained {e['trainings']:.0f} times, on {e['trained']:,.0f} tokens"
    )
    return e["exposed"] == 0, because


def single_pass(e: Evidence) -> tuple[bool, str]:
    """C4: each token is scored once, and a pass remembers nothing of an earlier one."""
    once = e["scored_once"] == e["targets"]
    because = (
        f"{e['scored_once']:,.0f} of {e['targets']:,.0f} tokens scored once, {e['scored_again']:,.0f} again, "
        f"{e['never_scored']:,.0f} never; a second pass changes the distributions by "
        f"{e['second_pass_change_nats']:.9f} nats at most"
    )
    return once and e["second_pass_change_nats"] <= CHANGE_TOLERANCE_NATS, because


def byte_denominator(e: Evidence) -> tuple[bool, str]:
    """The bytes that divide the bits are those of the text."""
    because = (
        f"{e['counted_bytes']:,.0f} bytes counted, the decoded text of {e['documents']:,.0f} documents has "
        f"{e['decoded_bytes']:,.0f}; {e['documents_wrong']:,.0f} documents differ"
    )
    return e["counted_bytes"] == e["decoded_bytes"] and e["documents_wrong"] == 0, because


def weights_restored(e: Evidence) -> tuple[bool, str]:
    """What was shipped is what is there after scoring."""
    because = f"{e['tensors_changed']:.0f} of {e['tensors']:.0f} tensors of the network differ after scoring"
    return e["tensors_changed"] == 0, because


RULES: Mapping[str, Callable[[Evidence], tuple[bool, str]]] = {
    "strict_prefix": strict_prefix,
    "full_distribution": full_distribution,
    "score_before_update": score_before_update,
    "single_pass": single_pass,
    "byte_denominator": byte_denominator,
    "weights_restored": weights_restored,
}
