"""Rules by which a score counts as a record, as versioned data (``service/data/verdict_rules.json``, or a user's file).

Every gate of a rule set is judged and shown; none hides the next. All tests are on bits per byte: a margin in nats per
token is converted by ours' own tokenizer, and what was converted is said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from service.errors import SpecError
from service.inference import Density, Test, fixed_z, one_sample, paired, pooled_z, welch
from service.stats import Sample

FILE = Path(__file__).parent / "data" / "verdict_rules.json"
Kind = Literal["difference", "one_sample", "welch", "pooled_z", "fixed_z", "paired"]
Unit = Literal["bpb", "nats_per_token"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One condition."""

    name: str
    test: Kind
    margin: float = 0.0
    """By how much ours must lie below."""
    unit: Unit = "bpb"
    """Of ``margin``, ``sd`` and ``target``."""
    p_below: float | None = None
    sd: float | None = None
    """Of one seed, taken as known (``fixed_z``)."""
    target: float | None = None
    """A number to beat in place of what is beaten."""
    decides: bool = True
    """Whether the verdict rests on it, or it is only shown."""

    def __post_init__(self) -> None:
        if self.test not in get_args(Kind) or self.unit not in get_args(Unit):
            raise ValueError(
                f"gate {self.name!r}: test is {' '.join(get_args(Kind))}; unit {' or '.join(get_args(Unit))}"
            )
        if (self.p_below is None) != (self.test == "difference"):
            raise ValueError(f"gate {self.name!r}: p_below goes with every test but difference")
        if self.p_below is not None and not 0 < self.p_below < 1:
            raise ValueError(f"gate {self.name!r}: p_below must lie between 0 and 1, got {self.p_below}")
        if (self.sd is None) == (self.test == "fixed_z") or (self.sd is not None and not 0 < self.sd < math.inf):
            raise ValueError(f"gate {self.name!r}: sd goes with fixed_z alone and is above 0, got {self.sd}")
        if self.target is not None and self.test not in ("difference", "one_sample", "fixed_z"):
            raise ValueError(f"gate {self.name!r}: {self.test} needs seeds on both sides, so no target")
        if not all(math.isfinite(value) for value in (self.margin, self.target or 0.0)):
            raise ValueError(f"gate {self.name!r}: margin and target must be numbers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """A rule set."""

    name: str
    version: str
    source: str
    gates: tuple[Gate, ...]
    tracks: tuple[str, ...] = ()
    """The leaderboards whose records it decides about; elsewhere it is only shown."""

    def __post_init__(self) -> None:
        if not any(gate.decides for gate in self.gates):
            raise ValueError(f"rules {self.name!r}: no gate decides")


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """What is compared."""

    name: str
    bpb: Sample
    density: Density | None = None
    """Of its tokenizer; None when unknown, and then gates in nats can't be judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateVerdict:
    """A gate, judged."""

    gate: Gate
    kept: bool | None
    """None: it can't be said."""
    because: str
    """The numbers, in a sentence."""
    test: Test | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RulesVerdict:
    """Every gate of a rule set, judged."""

    rules: Rules
    gates: tuple[GateVerdict, ...]

    @property
    def kept(self) -> bool | None:
        """Whether all gates that decide are kept; None if that hangs on one that can't be judged."""
        decisive = [one.kept for one in self.gates if one.gate.decides]
        return False if False in decisive else None if None in decisive else True

    def to_json(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "rules": self.rules.name,
            "version": self.rules.version,
            "kept": self.kept,
            "gates": [
                {
                    "name": one.gate.name,
                    "kept": one.kept,
                    "decides": one.gate.decides,
                    "because": one.because,
                    "test": one.test.name if one.test else None,
                    **{
                        part: getattr(one.test, part, None) for part in ("difference", "margin", "statistic", "df", "p")
                    },
                }
                for one in self.gates
            ],
        }


@cache
def known_rules() -> Mapping[str, Rules]:
    """The rule sets that come along, by name."""
    return {rules.name: rules for rules in read_rules(FILE)}


def find_rules(word: str) -> tuple[Rules, ...]:
    """The rule set of that name, or all of a user's JSON file.

    Raises:
        SpecError: there is neither.
    """
    if word in known_rules():
        return (known_rules()[word],)
    if not Path(word).is_file():
        raise SpecError(f"no rules {word!r}: there is {', '.join(known_rules())}, or a file as {FILE.name} is one")
    return read_rules(Path(word))


def read_rules(path: Path) -> tuple[Rules, ...]:
    """The rule sets of a file in the form of ``verdict_rules.json``.

    Raises:
        SpecError: the file can't be read, or a field is unknown, missing or of the wrong kind.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rules"]
        found = tuple(_rules(row) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SpecError(f"{path}: no rules that can be read ({type(error).__name__}: {error})") from error
    if not found:
        raise SpecError(f"{path}: it has no rules")
    return found


def _rules(row: Mapping[str, Any]) -> Rules:
    tracks = row.get("tracks", [])
    if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
        raise ValueError(f"rules {row.get('name')!r}: tracks is a list of names, got {tracks!r}")
    return Rules(**{**row, "gates": tuple(_gate(gate) for gate in row["gates"]), "tracks": tuple(tracks)})


def _gate(row: Mapping[str, Any]) -> Gate:
    for name, value in row.items():
        number = name in ("margin", "p_below", "sd", "target") and value is not None
        if number and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"gate {row.get('name')!r}: {name} must be a number, got {value!r}")
    unknown = sorted(row.keys() - {one.name for one in fields(Gate)})
    if unknown:
        raise ValueError(f"gate {row.get('name')!r}: no field {unknown[0]!r}")
    return Gate(**row)


def judge(rules: Rules, ours: Side, theirs: Side | None) -> RulesVerdict:
    """Judge every gate; ``theirs`` is what is to be beaten, None when there is nothing."""
    return RulesVerdict(rules=rules, gates=tuple(_judge(gate, ours, theirs) for gate in rules.gates))


def _judge(gate: Gate, ours: Side, theirs: Side | None) -> GateVerdict:
    if theirs is None and gate.target is None:
        return GateVerdict(gate=gate, kept=None, because="there is nothing to compare with")
    in_nats = gate.unit == "nats_per_token"
    if in_nats and ours.density is None:
        because = f"{ours.name} is in bits per byte alone: without its tokenizer's bytes per token there are no nats"
        return GateVerdict(gate=gate, kept=None, because=because)
    scale = ours.density.nats_per_bpb if in_nats and ours.density else 1.0
    test = _test(gate, ours, theirs, scale)
    better = test.difference <= -test.margin if test.margin else test.difference < 0
    kept = better if gate.p_below is None else None if test.p is None else test.p < gate.p_below
    return GateVerdict(gate=gate, kept=kept, because=_because(gate, test, ours, theirs, scale), test=test)


def _test(gate: Gate, ours: Side, theirs: Side | None, scale: float) -> Test:
    margin = gate.margin / scale
    target = gate.target / scale if gate.target is not None else theirs.bpb.mean if theirs else math.nan
    if gate.test == "difference":
        return Test(name="difference", difference=ours.bpb.mean - target, margin=margin)
    if gate.test == "one_sample":
        return one_sample(ours.bpb, target, margin)
    if gate.test == "fixed_z":
        return fixed_z(ours.bpb, target, (gate.sd or math.nan) / scale, margin)
    if theirs is None:
        raise ValueError(f"{gate.test} without another side")
    two_sided = {"welch": welch, "pooled_z": pooled_z, "paired": paired}[gate.test]
    return two_sided(ours.bpb, theirs.bpb, margin)


def _because(gate: Gate, test: Test, ours: Side, theirs: Side | None, scale: float) -> str:
    against = f"the target {gate.target:g}" if gate.target is not None else theirs.name if theirs else "nothing"
    text = f"{test.difference:+.6f} BPB against {against}"
    if scale != 1.0 and ours.density:
        text += f" ({test.difference * scale:+.6f} nats per token of {ours.density.tokenizer}"
        other = (
            theirs.density.tokenizer if theirs and theirs.density and gate.target is None else ours.density.tokenizer
        )
        text += "" if other == ours.density.tokenizer else f"; theirs is {other}, so only BPB compares"
        text += f"), {gate.margin:g} nats are {test.margin:.6f} BPB" if gate.margin else ")"
    elif gate.margin:
        text += f", margin {gate.margin:g}"
    if gate.p_below is None:
        return text
    if test.p is None:
        return f"{text}; no {test.name}: {test.missing}"
    letter = "z" if test.df is None else "t"
    df = "" if test.df is None else f", df = {test.df:.2f}"
    p = f"one-sided p = {test.p:.3g}, cut-off {gate.p_below:g}"
    return f"{text}; {test.name}: {letter} = {test.statistic:.2f}{df}, {p}"
