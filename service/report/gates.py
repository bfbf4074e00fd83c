"""The gates of every known rule set, for a winner against its base and against the field's frontier, where that is a
comparison: scores over another text or tokenizer, or of memorisation, are never held against each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.stages import Stage
from service.corpus.fineweb import NAME
from service.inference import FIELD_DENSITIES, Density
from service.leaderboard import frontier_on, rows_of, side_of
from service.verdicts import RulesVerdict, Side, judge, known_rules
from service.view import ConfigState

ALIKE = 1e-4
"""Relative difference of two densities that are still of one tokenizer: scores are printed to some 8 digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Against:
    """One comparison, or why it is none."""

    title: str
    verdicts: tuple[RulesVerdict, ...] = ()
    why_not: str = ""
    """Set exactly when nothing was judged."""
    aside: str = ""
    """What else to know of the comparison."""


def judged(ours: ConfigState, base: ConfigState) -> tuple[Against, ...]:
    """``ours``, which has finished seeds, against the base and against the field's records."""
    return (_against_base(ours, base), _against_field(ours))


def density_of(state: ConfigState) -> Density | None:
    """Bytes per token as its own scores measured them; None where they don't say both units."""
    found = [
        (report.metrics["val_loss_nats"], report.metrics["val_bpb"])
        for report in state.headlines
        if report.metrics.get("val_loss_nats", 0) > 0 and report.metrics.get("val_bpb", 0) > 0
    ]
    if not found:
        return None
    ratio = math.fsum(loss / bpb for loss, bpb in found) / len(found)
    return Density.measured(tokenizer_of(state), ratio, 1.0)


def tokenizer_of(state: ConfigState) -> str:
    """``sp1024`` of the field's own data, else by its digest."""
    field = NAME.fullmatch(state.config.params.get("corpus", ""))
    if field:
        return field[1]
    return f"tokenizer {state.config.tokenizer[:8]}" if state.config.tokenizer else "an unknown tokenizer"


def _side(state: ConfigState) -> Side:
    return Side(name=state.label, bpb=state.bpb, density=density_of(state))


def _against_base(ours: ConfigState, base: ConfigState) -> Against:
    title = "the base" if base.label == "base" else f"the base, {base.label}"
    if ours.config.digest == base.config.digest and ours.config.headline == base.config.headline:
        return Against(title=title, why_not="It is the base itself.")
    if why_not := _leaks(ours) or _leaks(base):
        return Against(title=title, why_not=why_not)
    if not base.done:
        return Against(title=title, why_not="No seed of the base has finished.")
    if why_not := _differ(ours, base):
        return Against(title=title, why_not=why_not)
    return Against(title=title, verdicts=_all(_side(ours), _side(base)))


def _leaks(state: ConfigState) -> str:
    if not state.leaks:
        return ""
    return f"{state.label} had learned from tokens before it scored them: its score measures memorisation."


def _differ(ours: ConfigState, base: ConfigState) -> str:
    """Why two configs' scores aren't of the same text in the same tokens; empty where they are."""
    if ours.config.corpus != base.config.corpus:
        return f"The corpora differ: {ours.config.corpus or 'unknown'} and {base.config.corpus or 'unknown'}."
    if ours.config.tokenizer != base.config.tokenizer:
        theirs = base.config.tokenizer or "unknown"
        return f"The tokenizers differ: {ours.config.tokenizer or 'unknown'} and {theirs}."
    mine, theirs_ = density_of(ours), density_of(base)
    if mine and theirs_ and not math.isclose(mine.bytes_per_token, theirs_.bytes_per_token, rel_tol=ALIKE):
        counts = f"{mine.bytes_per_token:.5f} and {theirs_.bytes_per_token:.5f} bytes per token"
        return f"The scores aren't of the same tokens: {counts}."
    return ""


def _against_field(ours: ConfigState) -> Against:
    frontier = frontier_on()
    title = f"the field's frontier, {frontier.title}"
    corpus = ours.config.params.get("corpus", "")
    field = NAME.fullmatch(corpus)
    if field is None:
        script = ours.config.headline is Stage.SCRIPT
        named = "which text this script scored isn't known" if script else f"this is corpus {corpus}"
        return Against(title=title, why_not=f"The field scores FineWeb's validation text; {named}.")
    if why_not := _leaks(ours):
        return Against(title=title, why_not=why_not)
    tokenizer, aside = field[1], ""
    if tokenizer != frontier.tokenizer:
        aside = f"The frontier itself, {frontier.title}, is on {frontier.tokenizer} and isn't held against {tokenizer}."
        alike = [row.record for row in rows_of() if row.record.state != "open" and row.record.tokenizer == tokenizer]
        if not alike:
            return Against(title=title, why_not=f"{aside} No record is on {tokenizer}.")
        frontier = min(alike, key=lambda record: record.claimed.mean)
        title = f"the field's best on {tokenizer}, {frontier.title}"
    mine, known = density_of(ours), FIELD_DENSITIES.get(tokenizer)
    if mine and known and not math.isclose(mine.bytes_per_token, known.bytes_per_token, rel_tol=10 * ALIKE):
        counts = f"{mine.bytes_per_token:.4f} bytes per token, the field's {tokenizer} has {known.bytes_per_token:.4f}"
        return Against(title=title, why_not=f"Not the whole validation text, or another tokenizer: {counts}.")
    return Against(title=title, verdicts=_all(_side(ours), side_of(frontier)), aside=aside)


def _all(ours: Side, theirs: Side) -> tuple[RulesVerdict, ...]:
    return tuple(judge(rules, ours, theirs) for rules in known_rules().values())
