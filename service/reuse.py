"""``--reuse KEY``: a finished stage that knowingly stands in for a planned one whose key differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from model.stages import STAGES, Stage
from service.errors import SpecError
from service.ports import Plan, StageStore
from service.stages import PlannedStage, Planner, key_prefix

At = tuple[Stage, int]
"""A kind of stage, and a seed."""


def reused_stages(keys: Sequence[str], store: StageStore) -> dict[At, str]:
    """Where each key can stand in.

    Raises:
        SpecError: it isn't finished here, is of no seed, or two are for the same place.
    """
    found: dict[At, str] = {}
    for key in dict.fromkeys(keys):
        kinds = [stage for stage in Stage if key.startswith(key_prefix(stage))]
        report = store.find(key) if kinds and "/" not in key else None
        if report is None:
            raise SpecError(f"--reuse {key}: no finished stage of that key; `caddie plan` names what is there")
        at = (Stage(report.stage), report.seed)
        if not STAGES[at[0]].of_a_seed:
            raise SpecError(f"--reuse {key}: an {at[0]} is of no seed and can't stand in for a stage of one")
        if at in found:
            raise SpecError(f"--reuse {key}: {found[at]} is to be the {at[0]} of seed {at[1]} already")
        found[at] = key
    return found


def check_reuse(planner: Planner, plans: Iterable[Plan]) -> None:
    """Refuse a reuse that fits nothing that was planned, or more than one thing.

    Raises:
        SpecError: by the name of the key.
    """
    if not planner.reuse:
        return
    planned = {(one.stage, one.seed) for plan in plans for one in plan}
    for (stage, seed), key in planner.reuse.items():
        stands_for = planner.replaced[stage, seed]
        if stage not in {kind for kind, _ in planned}:
            there = ", ".join(kind for kind in Stage if kind in {kind for kind, _ in planned})
            raise SpecError(f"--reuse {key}: no {stage} is planned; there is {there}")
        if (stage, seed) not in planned:
            seeds = ", ".join(str(other) for kind, other in sorted(planned) if kind is stage)
            raise SpecError(f"--reuse {key}: it is of seed {seed}, and the plan has {stage} of seeds {seeds}")
        if len(stands_for) > 1:
            raise SpecError(
                f"--reuse {key}: {len(stands_for)} different {stage} of seed {seed} are planned, and one result can't "
                "stand for all of them; plan fewer configs"
            )


def reuse_of(plans: Mapping[int, Sequence[PlannedStage]]) -> list[str]:
    """``train-ab of seed 42 stands for train-cd``: what a config's numbers rest on that it didn't make itself."""
    return [
        f"{planned.key} of seed {seed} stands for {planned.stands_for}"
        for seed, plan in plans.items()
        for planned in plan
        if planned.stands_for
    ]
