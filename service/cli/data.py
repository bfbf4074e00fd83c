"""``caddie data prepare``: a corpus of one's own, with tokenizer and shards."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from service.cli.context import MakeCommands
from service.cli.options import Json
from service.cli.show import write_json
from service.corpus.documents import find_documents
from service.corpus.prepare import prepare as prepare_corpus


def add_data(app: typer.Typer, make: MakeCommands) -> None:
    """Add the commands of this module."""
    data = typer.Typer(no_args_is_help=True)
    app.add_typer(data, name="data", help="Prepare corpora: tokenizer and shards.")

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
        if json_:
            manifest = json.loads((made.folder / "manifest.json").read_text(encoding="utf-8"))
            write_json({"folder": str(made.folder), **manifest})
        else:
            commands.out.print(f"{made.name}: digest {made.digest}, {made.folder}", soft_wrap=True)
