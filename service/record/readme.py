"""``README.md`` by the field's convention. One line a claim, so that ``verify`` can hold each against the logs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model.stages import Stage
from service.corpus.fineweb import how_to_get
from service.record.checks import checks
from service.record.contents import Record, record_facts
from service.record.facts import NON_RECORD, ComparedFacts, Facts
from service.record.logs import LABELS
from service.record.submission import hardware
from service.stats import Sample

COLUMNS = {Stage.SLIDING: "Sliding", Stage.TTT: "TTT", Stage.SLOT: "SLOT"}


def readme(record: Record) -> str:
    """``README.md`` of a record; every number comes from its reports."""
    return readme_of(record_facts(record))


def readme_of(facts: Facts) -> str:
    """``README.md`` of these facts."""
    sections = (_head, _seeds, _compared, _compliance, _reproduction, _provenance)
    return "\n".join("\n".join([*section(facts), ""]) for section in sections)


def _head(facts: Facts) -> Iterator[str]:
    about, bpb, n = facts.about, facts.bpb, facts.bpb.n
    largest = max(facts.artifact_bytes(seed) for seed in facts.seeds)
    kind = "Non-record" if about.track.startswith(NON_RECORD) else "Record"
    yield f"# {kind}: {about.name} - val_bpb {bpb.mean:.4f} ({n}-seed mean)"
    yield ""
    spread = "one seed, no sd" if bpb.sd is None else f"{n}-seed mean, sd {bpb.sd:.6f} with n - 1"
    yield f"**val_bpb = {bpb.mean:.6f} ({spread}) | {largest:,} bytes | {hardware(facts)}**"
    yield ""
    yield about.blurb
    yield ""
    change = "as it is" if about.title == "base" else f"with `{about.title}`"
    yield f"The score is `{LABELS[Stage(about.headline)]}`; the config is recipe `{about.recipe}` {change}."
    if about.non_record:
        yield ""
        yield "Not a record, because these rules are broken:"
        yield ""
        yield from (f"- {reason}" for reason in about.non_record)


def _seeds(facts: Facts) -> Iterator[str]:
    scores = {f"{COLUMNS[Stage(stage)]} val_bpb": facts.sample(stage) for stage in facts.stages}
    of_seed = {seed.seed: seed for seed in facts.seeds}
    columns: list[tuple[str, Sample, str]] = [
        ("Steps", Sample(values={n: seed.steps for n, seed in of_seed.items()}), ",.0f"),
        ("ms/step", Sample(values={n: seed.step_avg_ms for n, seed in of_seed.items()}), ".2f"),
        *((title, sample, ".6f") for title, sample in scores.items()),
        ("Artifact bytes", Sample(values={n: facts.artifact_bytes(seed) for n, seed in of_seed.items()}), ",.0f"),
        ("train s", Sample(values={n: seed.train_s for n, seed in of_seed.items()}), ".3f"),
        ("eval s", Sample(values={n: seed.eval_s for n, seed in of_seed.items()}), ".3f"),
    ]
    yield "## Seeds"
    yield ""
    yield _row(["Seed", *(title for title, _, _ in columns)])
    yield _row(["---"] * (1 + len(columns)))
    for seed in of_seed:
        yield _row([str(seed), *(f"{sample.values[seed]:{shape}}" for _, sample, shape in columns)])
    finer = [(sample, ",.1f" if shape == ",.0f" else shape) for _, sample, shape in columns]
    yield _row(["mean", *(f"{sample.mean:{shape}}" for sample, shape in finer)])
    yield _row(["sd (n - 1)", *("-" if sample.sd is None else f"{sample.sd:{shape}}" for sample, shape in finer)])
    yield ""
    yield "![Training loss of the seeds, and val_bpb of every config compared](figure.png)"


def _compared(facts: Facts) -> Iterator[str]:
    yield "## What was compared"
    yield ""
    if len(facts.compared) < 2:
        yield "Nothing: one config was run, and the mean is not the best of several."
        return
    base = next((row for row in facts.compared if row.title == "base"), facts.compared[0])
    yield _row(["Config", "Score", "n", "val_bpb mean", "sd (n - 1)", f"paired difference to `{base.title}`"])
    yield _row(["---"] * 6)
    for row in facts.compared:
        yield _row(_compared_cells(row, base, row.title == facts.about.title))
    seeds = sorted({seed for row in facts.compared for seed in (*row.bpb.values, *row.unfinished)})
    both = [seed.seed for seed in facts.seeds if seed.seed in seeds]
    yield ""
    yield (
        f"The config is one of {len(facts.compared)} that were compared on seeds {_listed(seeds)}. "
        f"Seeds of this record that took part in that choice: {_listed(both)}. "
        "A mean over seeds that also chose the config flatters it."
    )


def _compared_cells(row: ComparedFacts, base: ComparedFacts, chosen: bool) -> list[str]:
    sample, difference = row.bpb, row.bpb.minus(base.bpb)
    count = f"{sample.n}" + (f" (unfinished: {_listed(row.unfinished)})" if row.unfinished else "")
    paired = "-"
    if row is not base and difference.n:
        paired = f"{difference.mean:+.6f}" + ("" if difference.sd is None else f" ± {difference.sd:.6f}")
        paired += f" (n = {difference.n})"
    return [
        f"`{row.title}`" + (" (this record)" if chosen else ""),
        f"`{LABELS[Stage(row.headline)]}`" + (" (leaks)" if row.leaks else ""),
        count,
        f"{sample.mean:.6f}" if sample.n else "-",
        "-" if sample.sd is None else f"{sample.sd:.6f}",
        paired,
    ]


def _compliance(facts: Facts) -> Iterator[str]:
    yield "## Compliance"
    yield ""
    yield from (f"- [{'x' if check.kept else ' '}] {check.rule}: {check.because}" for check in checks(facts))


def _reproduction(facts: Facts) -> Iterator[str]:
    about = facts.about
    place = "" if about.device == "cuda" else f"DEVICE={about.device} "
    yield "## Reproduction"
    yield ""
    yield "```bash"
    yield "pip install -r requirements.txt"
    yield f"for seed in {' '.join(str(seed.seed) for seed in facts.seeds)}; do"
    yield f"  SEED=$seed {place}CPU_THREADS={about.threads} \\"
    yield f"    torchrun --standalone --nproc_per_node={about.ranks} train_gpt.py > train_seed$seed.log"
    yield "done"
    yield "```"
    yield ""
    yield f"The script finds the corpus where `{how_to_get(about.corpus)}` puts it and refuses any other than digest"
    yield f"`{about.corpus_digest}`; DATA_PATH names another folder."


def _provenance(facts: Facts) -> Iterator[str]:
    about = facts.about
    yield "## Where the numbers come from"
    yield ""
    yield f"- source: git `{about.git_sha or 'none'}`{', with uncommitted changes' if about.git_dirty else ''}"
    yield f"- spec: `{about.spec_digest}`"
    yield f"- corpus: {about.corpus}, digest `{about.corpus_digest}`"
    yield f"- train_gpt.py: {facts.code_bytes:,} bytes, sha256 `{facts.code_sha256}`"
    for seed in facts.seeds:
        keys = ", ".join(f"{stage} `{key}`" for stage, key in seed.keys.items())
        yield f"- seed {seed.seed}: {keys}; artifact of {seed.model_bytes:,} bytes, sha256 `{seed.artifact_sha256}`"
    yield f"- audit of {about.headline} (`audit.json`): `{about.audit_key}`, of config `{about.audit_digest}`"
    yield ""
    yield "Each number above is taken from the report of a stage (`reports.json`), rounded as the logs are."


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"
