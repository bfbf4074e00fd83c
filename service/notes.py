"""Notes of the experiments that were run: with one and the store, an experiment can be shown again at any time.

A note holds stage keys, settings and digests as they were and decodes no config, so it still reads when a config class
has changed since. What failed, and why, is in it too: the store keeps results only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from model.codec import digest, encode
from model.data.shards import open_corpus
from model.report import file_ref
from model.stages import Stage
from service.errors import StoreError
from service.experiment import Contender, Experiment
from service.overview import flat_params
from service.results import GroupResult
from service.reuse import reuse_of
from service.spec import RunSpec, slug
from service.stages import PlannedStage

FORMAT = 1
CONFIRMED = " confirmed"
"""Ends the title of a race's winner over fresh seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigNote:
    """One config: what it was, and the stages of each of its seeds."""

    key: str
    """Names the config over exactly its planned seeds and source, so that other seeds are another row of a view."""
    digest: str
    """Of the spec; equal whatever the seeds and the source."""
    recipe: str
    headline: Stage
    title: str
    overlay: Mapping[str, Any]
    """In its JSON form."""
    params: Mapping[str, str]
    """Every setting by dotted path."""
    corpus: str
    tokenizer: str
    """First 16 hex digits of its SHA-256; empty when its file is not here."""
    seeds: Mapping[int, Mapping[Stage, str]]
    """Seed -> stage, in running order -> key."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Why seeds failed."""
    stopped: str = ""
    """Why its remaining seeds were not run, when that was a choice."""
    won: bool = False
    """Whether it won a race."""
    reused: str = ""
    """Which stages stand in for its own, because ``--reuse`` said so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentNote:
    """One experiment that was begun; its first config is the base."""

    name: str
    id: str
    """Names the experiment: equal exactly when the same stages are asked for under the same name."""
    started_s: float
    """Unix time at which it was begun last."""
    git_sha: str
    git_dirty: bool
    configs: tuple[ConfigNote, ...]
    baseline: str = ""
    """Title of the config that others are compared with; empty: the base."""
    budget_gpu_hours: float | None = None
    """What the command that began it last may spend; None: it has no budget."""
    command: str = ""
    """The command line that began it last, for a shell; empty where it isn't known."""

    @property
    def compared_with(self) -> ConfigNote:
        """The config that the others are compared with."""
        labels = zip(labels_of(self.configs), self.configs, strict=True)
        return next((config for label, config in labels if self.baseline in (label, config.title)), self.configs[0])


def labels_of(configs: Sequence[ConfigNote]) -> list[str]:
    """Each config's title, with the score where a title alone is not enough."""
    titles = [config.title for config in configs]
    same = {title for title in titles if titles.count(title) > 1}
    return [f"{c.title} ({c.headline.removeprefix('score.')})" if c.title in same else c.title for c in configs]


def note_of(experiment: Experiment, *, git_sha: str, git_dirty: bool, started_s: float) -> ExperimentNote:
    """The note of an experiment that is about to begin."""
    configs = tuple(_config(c.spec, c.overlay, c.headline, c.plans) for c in experiment.contenders)
    return ExperimentNote(
        name=experiment.name,
        id=digest([experiment.name, *_asked_for(experiment, configs)], 12),
        started_s=started_s,
        git_sha=git_sha,
        git_dirty=git_dirty,
        configs=configs,
    )


def _asked_for(experiment: Experiment, configs: Sequence[ConfigNote]) -> list[Any]:
    """What was known before anything ran; contenders that are proposed follow from it."""
    keys, sampling = [config.key for config in configs], experiment.sampling
    return [keys] if sampling is None else [keys[: sampling.given], sampling.digest]


def grown(note: ExperimentNote, experiment: Experiment) -> ExperimentNote:
    """``note`` with the contenders that were proposed since."""
    new = (_config(c.spec, c.overlay, c.headline, c.plans) for c in experiment.contenders[len(note.configs) :])
    return replace(note, configs=(*note.configs, *new))


def confirming(note: ExperimentNote, fresh: Experiment) -> ExperimentNote:
    """``note`` with the winner of a race over ``fresh`` seeds, which begins now."""
    return replace(note, configs=(*note.configs, *(_confirmed(one) for one in fresh.contenders)))


def ended(note: ExperimentNote, groups: Iterable[GroupResult]) -> ExperimentNote:
    """``note`` with what came out: errors, who was stopped, who won. Over the seeds that confirm it, which took no part
    in choosing it, the winner of a race is a config of its own."""
    configs = {(config.key, config.title): config for config in note.configs}
    for group in groups:
        for one, title in ((group, group.title), (group.confirmed, f"{group.title}{CONFIRMED}")):
            if one is not None:
                plans = {seed: result.plan for seed, result in one.seeds.items()}
                now = replace(_config(one.spec, one.overlay, one.headline, plans), title=title)
                errors = {seed: result.error for seed, result in one.seeds.items() if result.error}
                before = configs.get((now.key, title), now)
                configs[now.key, title] = replace(before, errors=errors, stopped=one.stopped, won=one.won)
    return replace(note, configs=tuple(configs.values()))


def _confirmed(fresh: Contender) -> ConfigNote:
    config = _config(fresh.spec, fresh.overlay, fresh.headline, fresh.plans)
    return replace(config, title=f"{config.title}{CONFIRMED}")


def _config(
    spec: RunSpec, overlay: Mapping[str, Any], headline: Stage, plans: Mapping[int, Sequence[PlannedStage]]
) -> ConfigNote:
    seeds = {seed: {planned.stage: planned.key for planned in plan} for seed, plan in plans.items()}
    spec_digest = spec.digest()
    first = next((plan[0] for plan in plans.values()), None)
    return ConfigNote(
        key=f"{spec_digest}/{headline}/{digest([stages[headline] for stages in seeds.values()], 8)}",
        digest=spec_digest,
        recipe=spec.name,
        headline=headline,
        title=slug(overlay),
        overlay=encode(dict(overlay)),
        params=flat_params(spec),
        corpus=first.corpus_digest if first else "",
        tokenizer=_tokenizer(first.corpus) if first else "",
        seeds=seeds,
        reused="; ".join(reuse_of(plans)),
    )


@functools.cache
def _tokenizer(corpus: str) -> str:
    try:
        return file_ref(Path(corpus), open_corpus(Path(corpus)).tokenizer.name).sha256[:16]
    except (ValueError, OSError):
        return ""


def to_json(note: ExperimentNote) -> dict[str, Any]:
    """JSON data; a config's settings are written as what differs from the base's, and its stages as a list."""
    base = note.configs[0].params if note.configs else {}
    rows = []
    for config in note.configs:
        changed = {path: value for path, value in config.params.items() if base.get(path) != value}
        rows.append(
            {name: value for name, value in asdict(config).items() if name not in ("params", "seeds", "errors")}
            | {
                "changed": changed,
                "absent": sorted(base.keys() - config.params.keys()),
                "seeds": [[seed, list(stages.items())] for seed, stages in config.seeds.items()],
                "errors": [[seed, error] for seed, error in config.errors.items()],
            }
        )
    names = ("name", "id", "started_s", "git_sha", "git_dirty", "baseline", "budget_gpu_hours", "command")
    whole = {name: getattr(note, name) for name in names}
    return {"format": FORMAT, **whole, "params": dict(base), "configs": rows}


def from_json(data: Any) -> ExperimentNote:
    """The inverse of :func:`to_json`.

    Raises:
        StoreError: it is no note, or one of a newer version.
    """
    try:
        if data["format"] != FORMAT:
            raise StoreError(f"a note of format {data['format']!r}; this version reads {FORMAT}")
        configs = []
        for row in data["configs"]:
            own = dict(row)
            changed, absent = own.pop("changed"), set(own.pop("absent"))
            own["params"] = {path: v for path, v in data["params"].items() if path not in absent} | changed
            own["seeds"] = {int(seed): {Stage(stage): key for stage, key in keys} for seed, keys in own["seeds"]}
            own["errors"] = {int(seed): str(error) for seed, error in own["errors"]}
            configs.append(ConfigNote(**{**own, "headline": Stage(own["headline"])}))
        whole = {name: value for name, value in data.items() if name not in ("format", "params", "configs")}
        if not configs:
            raise StoreError("a note without configs")
        return ExperimentNote(**whole, configs=tuple(configs))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"not a note of an experiment ({type(error).__name__}: {error})") from error
