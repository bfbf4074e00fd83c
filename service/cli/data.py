"""``caddie data``: a corpus of one's own, with tokenizer and shards, or the field's FineWeb."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from model.data.shards import MANIFEST, Corpus
from service.cli.context import Commands, MakeCommands
from service.cli.options import Json
from service.cli.show import write_json
from service.corpus.documents import find_documents
from service.corpus.fetch import fetch as fetch_corpus
from service.corpus.fineweb import find_variant
from service.corpus.prepare import prepare as prepare_corpus


def add_data(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""
    data = typer.Typer(no_args_is_help=True)
    app.add_typer(data, name="data", help="Prepare or fetch corpora: tokenizer and shards.")

    @data.command()
    def prepare(
        corpus: Annotated[str, typer.Option(help="An embedded corpus, or a .jsonl[.xz] file.")] = "pd_mix_v1",
        vocab_size: Annotated[int, typer.Option(help="Pieces of the tokenizer.")] = 1024,
        json_: Json = False,
    ) -> None:
        """Train the tokenizer, write the shards, and check the byte count against the decoded text."""
        commands = make()
        corpora = commands.wiring.settings.corpora
        made = prepare_corpus(find_documents(corpus), vocab_size, corpora, lambda what: commands.err.print(what))
        _show(commands, made, json_)

    @data.command()
    def fetch(
        variant: Annotated[str, typer.Option(help="Tokenizer: sp1024, sp4096 or sp8192.")] = "sp1024",
        shards: Annotated[
            int, typer.Option(help="Train shards of 100 million tokens, 200 MB each; the field uses 80.")
        ] = 1,
        revision: Annotated[str | None, typer.Option(help="Another commit or branch than the pinned one.")] = None,
        json_: Json = False,
    ) -> None:
        """Fetch FineWeb as the field's scripts have it, each file checked; the same command goes on where it stopped.

        Use it as --set corpus=fineweb-sp1024-1 in run and sweep.
        """
        commands = make()
        wiring = commands.wiring
        made = fetch_corpus(
            find_variant(variant),
            shards,
            wiring.settings.corpora,
            wiring.hub(),
            lambda what: commands.err.print(what, soft_wrap=True),
            revision,
        )
        _show(commands, made, json_)


def _show(commands: Commands, made: Corpus, json_: bool) -> None:
    if json_:
        manifest = json.loads((made.folder / MANIFEST).read_text(encoding="utf-8"))
        write_json({"folder": str(made.folder), **manifest})
    else:
        commands.out.print(f"{made.name}: digest {made.digest}, {made.folder}", soft_wrap=True)
