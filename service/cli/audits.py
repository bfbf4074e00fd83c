"""``caddie audit``: does a scorer keep the rules? Answered on this machine's CPU, before any GPU is paid for."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from service.audit import Audit, Outside, plan_audit, read_audit, rule_json, scorer_named
from service.cli.context import Commands, MakeCommands
from service.cli.options import Json, Sets
from service.cli.show import write_json
from service.errors import CaddieError, SpecError, StageFailed
from service.spec import RunSpec

SCORER_HELP = "One of the recipe's scorers (sliding, slot, ttt; all that are on by default), or package.module:Name."


class AuditFailed(CaddieError):
    """An audit that came to no verdict."""


def add_audits(app: typer.Typer, make: MakeCommands) -> None:
    """Add the command of this module."""

    @app.command()
    def audit(
        recipe: str,
        scorer: Annotated[str | None, typer.Option(help=SCORER_HELP)] = None,
        set_: Sets = None,
        json_: Json = False,
    ) -> None:
        """Play the real scorer over changed text on a small network; exit 1 when it breaks a rule.

        Example: caddie audit tiny --scorer slot --set score.slot.loss_on=scored
        """
        commands = make()
        audits = audit_scorers(commands, commands.recipe(recipe, set_), scorer)
        clean = all(one.clean for one in audits.values())
        if json_:
            rules = [{"scorer": name, **rule_json(rule)} for name, one in audits.items() for rule in one.rules]
            write_json({"clean": clean, "rules": rules})
        else:
            _show(commands, audits)
        if not clean:
            raise typer.Exit(1)


def audit_scorers(commands: Commands, spec: RunSpec, name: str | None) -> dict[str, Audit]:
    """The audit of the scorer of that name, or of each that the recipe turns on; from the store where it is there."""
    scorers = spec.scores if name is None else (scorer_named(spec, name),)
    if not scorers:
        raise SpecError(f"recipe {spec.name} has no score turned on")
    corpus, store = commands.corpus(spec), commands.wiring.store()
    audits = {}
    for scorer in scorers:
        short = str(scorer) if isinstance(scorer, Outside) else scorer.removeprefix("score.")
        planned = plan_audit(spec, corpus, scorer)
        if store.find(planned.key) is None:
            commands.err.print(f"audit of {short}: playing changed text through it, a minute or so", soft_wrap=True)
        try:
            commands.wiring.run_here(planned)
        except StageFailed as error:
            # Of a config and not of a seed; a check's own words say all.
            why = re.sub(r"^rank \d+: (ValueError: )?", "", error.why)
            raise AuditFailed(f"audit of {short}: {why}") from error
        audits[short] = read_audit(store.folder(planned.key))
    return audits


def _show(commands: Commands, audits: dict[str, Audit]) -> None:
    for name, audit in audits.items():
        commands.out.print(f"{name}: {'clean' if audit.clean else 'NOT clean'}", soft_wrap=True)
        for rule in audit.rules:
            commands.out.print(f"  {'kept  ' if rule.kept else 'BROKEN'}  {rule.rule}: {rule.because}", soft_wrap=True)
