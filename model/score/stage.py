"""The scoring stages: reload the packed artifact in a fresh process and score the validation split with it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model.data.shards import open_corpus
from model.data.vocab import byte_table, load_tokenizer
from model.gang import Gang
from model.job import ARTIFACT, EXPOSURE, Job
from model.net.gpt import GPT
from model.quant.pack import load_artifact
from model.report import write_json
from model.score.bpb import Tally
from model.score.exposure import exposure_json
from model.score.stream import Stream
from model.score.windows import WindowConfig


class Scorer(Protocol):
    """One way to score; a config that knows how to run itself."""

    def score_stream(self, net: GPT, stream: Stream, windows: WindowConfig, tally: Tally, gang: Gang) -> None:
        """Predict every target of ``stream`` into ``tally``, and note there what is trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """The windows all scorers share, and the scorers of the recipe; None is off."""

    windows: WindowConfig = WindowConfig()
    sliding: Scorer | None = None
    slot: Scorer | None = None


LABELS = {"score.sliding": "final_int6_sliding_window", "score.slot": "final_slot"}
"""The field's names of the final lines in a log."""


def score_stage(job: Job, out: Path, gang: Gang) -> dict[str, float]:
    """Score the artifact of the pack stage on the validation split.

    Returns:
        ``val_bpb``, ``val_loss_nats``, ``eval_s``, ``tokens``, ``text_bytes``, ``scored_twice``, ``exposed``.
    """
    config: ScoreConfig = job.config.score
    scorer: Scorer = getattr(config, job.stage.removeprefix("score."))
    corpus = open_corpus(Path(job.corpus), job.corpus_digest)
    stream = Stream(tokens=corpus.tokens("val"))
    table = byte_table(load_tokenizer(corpus.tokenizer))
    net = job.config.net.build()
    net.load_state_dict(load_artifact(Path(job.inputs["pack"]) / ARTIFACT))
    net = net.to(gang.device).eval()
    tally = Tally(stream, table.count(stream.tokens[:-1], stream.tokens[1:]), gang, gang.log)
    started = time.perf_counter()
    scorer.score_stream(net, stream, config.windows, tally, gang)
    score = tally.score()
    eval_s = gang.first(time.perf_counter() - started)
    events = [event for rank in gang.gather(tally.exposure.events) for event in rank]
    if gang.chief:
        write_json(out / EXPOSURE, exposure_json(events))
    label = LABELS[job.stage]
    gang.log(
        f"{label} val_loss:{score.val_loss_nats:.4f} val_bpb:{score.val_bpb:.4f} "
        f"stride:{config.windows.stride} eval_time:{1000 * eval_s:.0f}ms"
    )
    gang.log(f"{label}_exact val_loss:{score.val_loss_nats:.8f} val_bpb:{score.val_bpb:.8f}")
    return {
        "val_bpb": score.val_bpb,
        "val_loss_nats": score.val_loss_nats,
        "eval_s": eval_s,
        "tokens": score.tokens,
        "text_bytes": score.text_bytes,
        "scored_twice": score.scored_twice,
        "exposed": score.exposed,
    }
