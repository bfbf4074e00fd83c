"""A record folder of somebody's own script: the script byte for byte, a log of each seed, and what those logs say.

Every number is read from the logs as :mod:`service.record.field_verify` reads anyone's, and nothing else: what it finds
in the folder afterwards decides whether there is one.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from service.errors import RecordError
from service.record.checks import SEEDS_NEEDED, Check
from service.record.evidence import CODE, LOG_NAME, README, SUBMISSION, log_name
from service.record.facts import NON_RECORD
from service.record.field_log import FieldLog, read_field_log
from service.record.field_verify import STEPS_OVER, FieldVerdict, verify_any
from service.spec import Budget
from service.stats import Sample

TRACK = "10min_16mb"
SCRATCH = ".unfinished-"


@dataclass(frozen=True, kw_only=True)
class ScriptRecord:
    """What a record of a script is made of."""

    name: str
    author: str
    github_id: str
    date: str
    script: bytes
    beside: Mapping[str, bytes]
    """What it names or imports of the files that lay beside it."""
    env: Mapping[str, str]
    logs: Mapping[int, str]
    """Seed -> all that its ranks printed."""
    keys: Mapping[int, str]
    """Seed -> its stage in the store."""
    gang: str
    """``8x cuda``."""
    ranks: int
    data: str
    """Digest of what it could read; empty: none."""
    title: str
    compared: Mapping[str, Sample]
    """Title -> scores of every config that was compared, this one among them, the base first."""
    non_record: bool = False

    @cached_property
    def read(self) -> dict[int, FieldLog]:
        """The logs as anyone reads them."""
        return {seed: read_field_log(log_name(seed), text) for seed, text in self.logs.items()}

    def sample(self, unit: str) -> Sample:
        """``val_bpb`` or ``val_loss`` of the last score of each log.

        Raises:
            RecordError: a log has none.
        """
        silent = [seed for seed, log in self.read.items() if log.final is None]
        if silent or not self.logs:
            raise RecordError(f"{self.name}: no final score in the log of seed {silent or 'any'}")
        return Sample(values={seed: float(getattr(log.final, unit)) for seed, log in self.read.items()})

    @property
    def label(self) -> str:
        """What the script calls its score."""
        return next(log.final.label for log in self.read.values() if log.final)


def numbers(record: ScriptRecord, what: str) -> Sample:
    """``steps``, ``average_ms``, ``artifact_bytes``, ``train_s`` or ``eval_s`` of each seed whose log has it."""
    read = {
        seed: log.train_ms / 1000 if what == "train_s" and log.train_ms is not None else getattr(log, what, None)
        for seed, log in record.read.items()
    }
    return Sample(values={seed: value for seed, value in read.items() if value is not None})


def script_checks(record: ScriptRecord) -> tuple[Check, ...]:
    """The rules that logs alone can tell of; a number that no log has breaks its rule."""
    budget, seeds = Budget(), len(record.logs)
    slack = STEPS_OVER * max(numbers(record, "average_ms").values.values(), default=0.0) / 1000
    return (
        _under(
            record, "artifact_under_cap", "artifact_bytes", "{:,.0f} bytes of code and model", budget.artifact_bytes
        ),
        _under(record, "train_under_cap", "train_s", "{:,.3f} s of training", budget.train_s, slack),
        _under(record, "eval_under_cap", "eval_s", "{:,.3f} s for all scores together", budget.eval_s),
        Check(rule="three_seeds", kept=seeds >= SEEDS_NEEDED, because=f"n = {seeds}; a record needs {SEEDS_NEEDED}"),
    )


def _under(record: ScriptRecord, rule: str, what: str, shape: str, cap: float, slack: float = 0.0) -> Check:
    found = numbers(record, what).values
    if len(found) < len(record.logs):
        silent = ", ".join(str(seed) for seed in record.logs if seed not in found)
        return Check(rule=rule, kept=False, because=f"no log line tells it of seed {silent}")
    worst = max(found, key=lambda seed: found[seed])
    aside = f", and the step in which the clock ran out is finished ({slack:.3f} s)" if slack else ""
    because = f"{shape.format(found[worst])} in the worst seed, {worst}; the cap is {cap:,.10g}{aside}"
    return Check(rule=rule, kept=found[worst] <= cap + slack, because=because)


def submission_of_script(record: ScriptRecord) -> dict[str, Any]:
    """``submission.json``, with the keys of our own records as far as logs tell them. ``*_std`` is of the sample."""
    bpb, loss, sizes = record.sample("val_bpb"), record.sample("val_loss"), numbers(record, "artifact_bytes")
    whole = sizes.n == len(record.logs)
    return {
        "author": record.author,
        "github_id": record.github_id,
        "name": record.name,
        "blurb": _blurb(record),
        "date": record.date,
        "track": track_of(record),
        "val_loss": round(loss.mean, 8),
        "val_bpb": round(bpb.mean, 8),
        "val_loss_std": None if loss.sd is None else round(loss.sd, 8),
        "val_bpb_std": None if bpb.sd is None else round(bpb.sd, 8),
        "seeds": list(record.logs),
        "seed_results": {str(seed): _result(record, seed) for seed in record.logs},
        "bytes_total": max(sizes.values.values()) if whole else None,
        "artifact_bytes_mean": round(sizes.mean, 1) if whole else None,
        "artifact_bytes_max": max(sizes.values.values()) if whole else None,
        "bytes_code": code_bytes(record),
        "hardware": record.gang,
        "compliance": {check.rule: check.kept for check in script_checks(record)},
    }


def track_of(record: ScriptRecord) -> str:
    """The field's; begins otherwise for what isn't a record."""
    return f"{NON_RECORD}{TRACK.removeprefix('10min_')}" if record.non_record else TRACK


def code_bytes(record: ScriptRecord) -> int:
    """As the script counted itself, else its file's."""
    counted = {log.codes[-1] for log in record.read.values() if log.codes}
    return counted.pop() if len(counted) == 1 else len(record.script)


def _blurb(record: ScriptRecord) -> str:
    given = f" with {' '.join(f'{name}={value}' for name, value in record.env.items())}" if record.env else ""
    return f"train_gpt.py as it is{given}, over {len(record.logs)} seeds"


def _result(record: ScriptRecord, seed: int) -> dict[str, Any]:
    log = record.read[seed]
    final = log.final
    assert final is not None
    return {
        "val_bpb": float(final.val_bpb),
        "val_loss": float(final.val_loss),
        "artifact_bytes": log.artifact_bytes,
        "steps": log.steps,
        "step_avg_ms": None if log.average_ms is None else round(log.average_ms, 2),
        "train_time_s": None if log.train_ms is None else log.train_ms / 1000,
        "eval_time_s": log.eval_s,
    }


def readme_of_script(record: ScriptRecord) -> str:
    """``README.md`` by the field's convention; its seed table is what the logs say."""
    sections = (_head, _seeds, _compared, _compliance, _reproduction, _provenance)
    return "\n".join("\n".join([*section(record), ""]) for section in sections)


def _head(record: ScriptRecord) -> Iterator[str]:
    bpb, sizes = record.sample("val_bpb"), numbers(record, "artifact_bytes")
    kind = "Non-record" if record.non_record else "Record"
    size = f"{max(sizes.values.values()):,} bytes | " if sizes.n else ""
    spread = "one seed, no sd" if bpb.sd is None else f"{bpb.n}-seed mean, sd {bpb.sd:.6f} with n - 1"
    yield f"# {kind}: {_plain(record.name)} - val_bpb {bpb.mean:.4f} ({bpb.n}-seed mean)"
    yield ""
    yield f"**val_bpb = {bpb.mean:.6f} ({spread}) | {size}{record.gang}**"
    yield ""
    yield f"{_plain(_blurb(record))}. The score is its last, `{_plain(record.label)}`."
    broken = [check for check in script_checks(record) if not check.kept]
    if record.non_record and broken:
        yield ""
        yield "Not a record, because these rules are broken:"
        yield ""
        yield from (f"- {check.rule}: {check.because}" for check in broken)


COLUMNS = (
    *(("Steps", "steps", ",.0f"), ("ms/step", "average_ms", ".2f")),
    *(("Artifact bytes", "artifact_bytes", ",.0f"), ("train s", "train_s", ".3f"), ("eval s", "eval_s", ".3f")),
)


def _seeds(record: ScriptRecord) -> Iterator[str]:
    columns = [("val_bpb", record.sample("val_bpb"), ".8f"), ("val_loss", record.sample("val_loss"), ".8f")]
    columns += [(title, numbers(record, what), shape) for title, what, shape in COLUMNS]
    columns = [column for column in columns if column[1].n]
    yield "## Seeds"
    yield ""
    yield _row(["Seed", *(title for title, _, _ in columns)])
    yield _row(["---"] * (1 + len(columns)))
    for seed in record.logs:
        yield _row(
            [str(seed), *(f"{of.values[seed]:{shape}}" if seed in of.values else "-" for _, of, shape in columns)]
        )
    finer = [
        (of if of.n == len(record.logs) else None, ",.1f" if shape == ",.0f" else shape) for _, of, shape in columns
    ]
    yield _row(["mean", *("-" if of is None else f"{of.mean:{shape}}" for of, shape in finer)])
    sds = ("-" if of is None or of.sd is None else f"{of.sd:{shape}}" for of, shape in finer)
    yield _row(["sd (n - 1)", *sds])


def _compared(record: ScriptRecord) -> Iterator[str]:
    yield "## What was compared"
    yield ""
    if len(record.compared) < 2:
        yield "Nothing: the script was run once over its seeds, and the mean is not the best of several."
        return
    base = next(iter(record.compared.values()))
    yield _row(["Config", "n", "val_bpb mean", "sd (n - 1)", "paired difference to the first"])
    yield _row(["---"] * 5)
    for title, sample in record.compared.items():
        paired = sample.minus(base)
        cells = [f"`{_plain(title)}`" + (" (this record)" if title == record.title else ""), str(sample.n)]
        cells += [f"{sample.mean:.6f}" if sample.n else "-", "-" if sample.sd is None else f"{sample.sd:.6f}"]
        yield _row([*cells, f"{paired.mean:+.6f} (n = {paired.n})" if paired.n and sample is not base else "-"])
    yield ""
    yield f"The config is one of {len(record.compared)}, chosen by the seeds above, which flatter it."


def _compliance(record: ScriptRecord) -> Iterator[str]:
    yield "## Compliance"
    yield ""
    yield from (f"- [{'x' if check.kept else ' '}] {check.rule}: {check.because}" for check in script_checks(record))
    yield ""
    yield "By the logs alone. Whether the script learns from tokens before it scores them was not audited."


def _reproduction(record: ScriptRecord) -> Iterator[str]:
    given = "".join(f"{name}={_quoted(value)} " for name, value in record.env.items())
    yield "## Reproduction"
    yield ""
    yield "```bash"
    yield f"for seed in {' '.join(map(str, record.logs))}; do"
    yield f"  SEED=$seed {given}\\"
    yield f"    torchrun --standalone --nproc_per_node={record.ranks} {CODE} > train_seed$seed.log 2>&1"
    yield "done"
    yield "```"


def _provenance(record: ScriptRecord) -> Iterator[str]:
    yield "## Where the numbers come from"
    yield ""
    yield f"- {CODE}: {len(record.script):,} bytes, sha256 `{hashlib.sha256(record.script).hexdigest()}`"
    for name, content in record.beside.items():
        yield f"- {_plain(name)}: {len(content):,} bytes beside it, sha256 `{hashlib.sha256(content).hexdigest()}`"
    yield f"- data: {f'digest `{record.data}`' if record.data else 'none'}"
    yield from (f"- seed {seed}: `{log_name(seed)}`, stage `{key}`" for seed, key in record.keys.items())


def _quoted(value: str) -> str:
    """A word for bash on one line, whatever is in it."""
    if value.isprintable():
        return shlex.quote(value)
    escaped = value.encode("unicode_escape").decode().replace("'", "\\'")
    return f"$'{escaped}'"


def _plain(text: str) -> str:
    """On one line, and no end of a code span or a cell."""
    return " ".join(text.replace("`", "'").replace("|", "/").split())


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def assemble_script(record: ScriptRecord, out: Path) -> FieldVerdict:
    """Write the folder ``out`` whole or not at all, once the field's verification finds nothing wrong in it; an older
    record there is replaced, anything else is left alone. One process at a time.

    Raises:
        RecordError: a rule is broken and it isn't called a non-record, a claim isn't borne out by the logs, or the
            place holds something else.
    """
    record.sample("val_bpb")
    broken = [f"{check.rule}: {check.because}" for check in script_checks(record) if not check.kept]
    if broken and not record.non_record:
        raise RecordError(f"this is no record: {'; '.join(broken)}. As a non-record it can be assembled")
    target, texts = out.resolve(), _texts(record)
    if target.exists():
        own = {*texts, CODE, README, SUBMISSION}
        there = sorted(path.name for path in target.iterdir()) if target.is_dir() else [target.name]
        if foreign := [name for name in there if name not in own and not LOG_NAME.fullmatch(name)]:
            raise RecordError(f"{target} holds {', '.join(foreign)}, which no such record has: name another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}{SCRATCH}*"):  # of one that was killed half-way
            shutil.rmtree(left, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}{SCRATCH}", dir=target.parent))
        try:
            return _publish(scratch, target, texts)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise RecordError(f"{out}: {error.strerror or error}") from error


def _texts(record: ScriptRecord) -> dict[str, bytes]:
    """Every file by name."""
    own = {
        CODE: record.script,
        SUBMISSION: (json.dumps(submission_of_script(record), indent=2, allow_nan=False) + "\n").encode(),
        README: readme_of_script(record).encode(),
    }
    taken = sorted(own.keys() & record.beside.keys())
    if taken:
        raise RecordError(f"the script needs a file {taken[0]} beside it, and a record has its own of that name")
    logs = {log_name(seed): text.encode() for seed, text in record.logs.items()}
    return {**record.beside, **own, **logs}


def _publish(scratch: Path, target: Path, texts: Mapping[str, bytes]) -> FieldVerdict:
    for name, content in texts.items():
        (scratch / name).write_bytes(content)
    verdict = verify_any(scratch)
    assert isinstance(verdict, FieldVerdict)
    if not verdict.ok:
        raise RecordError("the logs don't bear it out: " + "; ".join(verdict.mismatches))
    scratch.chmod(0o755)
    if target.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}{SCRATCH}old", dir=target.parent))
        os.rename(target, aside / "record")
        try:
            os.rename(scratch, target)
        except BaseException:
            os.rename(aside / "record", target)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(scratch, target)
    return verdict
