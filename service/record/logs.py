"""The log of a seed in a record folder: composed from the logs of its stages, and read by the field's line formats.

Nothing that decides a result is read here: records are assembled from reports. Reading is for ``verify``, which takes
a folder as anyone would find it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType

from model.stages import Stage

LABELS: Mapping[Stage, str] = MappingProxyType(
    {Stage.SLIDING: "final_int6_sliding_window", Stage.TTT: "legal_ttt", Stage.SLOT: "final_slot"},
)
"""The field's names of the final lines. ``model.score.stage`` prints them but needs torch, so that they are repeated
here; a test ties the two together, and :func:`size_lines` to ``model.run``."""

# Line formats counted over 3,076 logs in pull requests of openai/parameter-golf. Every fifth log begins with a dump of
# its source, whose f-strings look like these lines, so every number must be digits, and not absurdly many.
SEED = re.compile(r"^[ \t]*seed: ?(\d{1,19})\b", re.M)
PARAMS = re.compile(r"^model_params:(\d{1,15})\b", re.M)
STEP = re.compile(
    r"^step:(?P<step>\d{1,15})/\d+ "
    r"(?:train_loss:\d+\.\d+|val_loss:\d+\.\d+ val_bpb:\d+\.\d+) train_time:(?P<ms>\d{1,15})ms",
    re.M,
)
STEP_IN_MINUTES = re.compile(
    r"^(?P<step>\d{1,15})/\d+ train_loss: \d+\.\d+ train_time: (?P<minutes>\d{1,9}\.\d+)m ", re.M
)
STOPPED = re.compile(
    r"^stopping_early: wallclock_cap train_time: ?(?P<ms>\d{1,15})ms step: ?(?P<step>\d{1,15})/\d+", re.M
)
MODEL_BYTES = re.compile(r"^Serialized model [^:\n]+: (\d{1,15}) bytes", re.M)
CODE_BYTES = re.compile(r"^Code size[^:\n]*: (\d{1,15}) bytes", re.M)
TOTAL_BYTES = re.compile(r"^Total submission size[^:\n]*: (\d{1,15}) bytes", re.M)
FINAL = re.compile(
    r"^(?P<label>[A-Za-z][\w .+()/-]*?)(?P<exact>_exact)? val_loss:(?P<loss>\d{1,15}\.\d{1,15}) "
    r"val_bpb:(?P<bpb>\d{1,15}\.\d{1,15})(?:.*?(?:eval_)?time:(?P<ms>\d{1,15})ms)?",
    re.M,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Final:
    """One score, as printed: a ``Decimal`` keeps how many digits that were."""

    val_loss: Decimal
    """Nats per token."""
    val_bpb: Decimal
    exact: bool
    """Whether the ``_exact`` line, with 8 decimals, was there."""
    eval_ms: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedLog:
    """What a seed's log says; None where it has no such line."""

    seed: int | None = None
    params: int | None = None
    steps: int | None = None
    train_ms: int | None = None
    model_bytes: int | None = None
    code_bytes: int | None = None
    total_bytes: int | None = None
    """Of the last ``Total submission size`` line: there are several where a raw size is printed first."""
    finals: Mapping[str, Final] = field(default_factory=dict)
    """Label -> score, in the order of first print."""


def size_lines(matrix_bits: int, codec: str, model_bytes: int, code_bytes: int) -> list[str]:
    """The lines about the size that counts, which only who knows the code's bytes can print."""
    return [
        f"Code size: {code_bytes} bytes",
        f"Total submission size int{matrix_bits}+{codec}: {code_bytes + model_bytes} bytes",
    ]


def seed_log(to_pack: Sequence[str], sizes: Sequence[str], scores: Sequence[str]) -> str:
    """The log of a seed: the logs of train to pack, the size lines, then the logs of the scores."""
    parts = [*to_pack, "\n".join(sizes), *scores]
    return "".join(part if part.endswith("\n") or not part else f"{part}\n" for part in parts)


def read_log(text: str) -> SeedLog:
    """The numbers in a log. Of a line that is printed several times the last counts."""
    steps, train_ms = _training(text)
    return SeedLog(
        seed=_last(SEED, text),
        params=_last(PARAMS, text),
        steps=steps,
        train_ms=train_ms,
        model_bytes=_last(MODEL_BYTES, text),
        code_bytes=_last(CODE_BYTES, text),
        total_bytes=_last(TOTAL_BYTES, text),
        finals=_finals(text),
    )


def _finals(text: str) -> dict[str, Final]:
    """A plain line and the ``_exact`` line that rounds to it are one score; any other re-print of a label replaces it,
    as where the sliding score comes again as ``final_int6_roundtrip_exact``."""
    finals: dict[str, Final] = {}
    for found in FINAL.finditer(text):
        label, loss, bpb = found["label"], Decimal(found["loss"]), Decimal(found["bpb"])
        eval_ms = int(found["ms"]) if found["ms"] else None
        before = finals.get(label)
        if found["exact"] and before and not before.exact and _rounds_to(loss, before.val_loss):
            eval_ms = before.eval_ms if eval_ms is None else eval_ms
        finals[label] = Final(val_loss=loss, val_bpb=bpb, exact=bool(found["exact"]), eval_ms=eval_ms)
    return finals


def _rounds_to(exact: Decimal, printed: Decimal) -> bool:
    return abs(exact - printed) <= half_unit(printed)


def half_unit(printed: Decimal) -> Decimal:
    """Half a unit of the last printed digit; 0 for a whole number, which is a count."""
    exponent = printed.as_tuple().exponent
    return Decimal(5).scaleb(exponent - 1) if isinstance(exponent, int) and exponent < 0 else Decimal(0)


def _training(text: str) -> tuple[int | None, int | None]:
    """Steps and milliseconds at the end of training."""
    for pattern in (STOPPED, STEP):
        if all_found := list(pattern.finditer(text)):
            return int(all_found[-1]["step"]), int(all_found[-1]["ms"])
    if in_minutes := list(STEP_IN_MINUTES.finditer(text)):
        return int(in_minutes[-1]["step"]), round(60_000 * float(in_minutes[-1]["minutes"]))
    return None, None


def _last(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None
