from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from model.codec import encode
from model.data.shards import Corpus
from model.gang import Gang
from model.job import ARTIFACT, CHECKPOINT, Job
from model.net.gpt import GPTConfig
from model.quant.container import write_container
from model.quant.pack import pack_stage
from model.report import read_report
from model.run import RunConfig
from model.train import TrainConfig
from service.adapters import leash, torchrun
from service.adapters.torchrun import GRACE_S, TORCHRUN, Ended, add_torchrun_s_words, run_gang, torchrun_command
from service.adapters.watchdog import Limits, Stop, Watchdog

Alive = Callable[[], list[psutil.Process]]
Until = Callable[[Callable[[], object], float, str], None]
GONE_S = 5.0
"""From the kernel's SIGKILL of a group to the end of its last process, on a busy machine."""


def gang(command: list[str], log: Path, deadline_s: float = 60) -> Ended:
    return asyncio.run(run_gang(command, 1, log, watchdog(log, deadline_s)))


def watchdog(log: Path, deadline_s: float = 60) -> Watchdog:
    return Watchdog(log.parent, Limits(deadline_s=deadline_s), 1)


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_that_ends_by_itself_gives_its_exit_code_and_leaves_its_output_in_the_log(
    tmp_path: Path, alive: Alive, until: Until, code: int
) -> None:
    log = tmp_path / "log.txt"
    log.write_text("an earlier line\n")
    ended = gang(["sh", "-c", f"echo to out; echo to err >&2; pwd; exit {code}"], log)
    assert ended == Ended(exit_code=code)
    assert log.read_text() == f"an earlier line\nto out\nto err\n{tmp_path}\n"
    until(lambda: not alive(), GONE_S, "everybody has ended")


def test_a_gang_gets_its_threads_an_empty_input_and_our_source_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    script = "import model, os, sys; print(os.environ['OMP_NUM_THREADS'], sys.stdin.read() == '', model.__file__)"
    asyncio.run(run_gang([sys.executable, "-c", script], 3, tmp_path / "log.txt", watchdog(tmp_path / "log.txt")))
    threads, empty, path = (tmp_path / "log.txt").read_text().split()
    assert (threads, empty) == ("3", "True")
    assert Path(path).resolve() == Path(__file__).resolve().parents[3] / "model" / "__init__.py"


def test_a_command_that_outlives_its_deadline_gets_sigterm_and_may_clean_up(
    tmp_path: Path, alive: Alive, until: Until
) -> None:
    log = tmp_path / "log.txt"
    started = time.monotonic()
    ended = gang(["sh", "-c", "trap 'echo cleaned; exit 7' TERM; while :; do sleep 0.1; done"], log, 0.5)
    assert (ended.exit_code, ended.stopped and ended.stopped.stop) == (7, Stop.DEADLINE)
    assert log.read_text().endswith("cleaned\n")
    assert time.monotonic() - started < 0.5 + GRACE_S
    until(lambda: not alive(), GONE_S, "everybody has ended")


def test_a_command_that_ignores_sigterm_is_killed_with_its_group(tmp_path: Path, alive: Alive, until: Until) -> None:
    deadline_s = 0.5
    started = time.monotonic()
    ended = gang(["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000; wait"], tmp_path / "log.txt", deadline_s)
    assert (ended.exit_code, ended.stopped and ended.stopped.stop) == (-signal.SIGKILL, Stop.DEADLINE)
    assert GRACE_S <= time.monotonic() - started < deadline_s + GRACE_S + 2
    until(lambda: not alive(), GONE_S, "everybody has ended")


def test_a_cancelled_gang_leaves_no_process(
    tmp_path: Path, alive: Alive, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchrun, "GRACE_S", 0.3)
    log = tmp_path / "log.txt"

    async def cancel() -> None:
        command = ["sh", "-c", "trap '' TERM; sleep 1000 & echo up; wait; sleep 1000"]
        task = asyncio.create_task(run_gang(command, 1, log, watchdog(log)))
        await asyncio.to_thread(until, lambda: log.exists() and log.read_text() == "up\n", 10, "the command is up")
        assert len(alive()) == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    until(lambda: not alive(), GONE_S, "everybody has ended")


def on_leash(sign: str, *command: str) -> list[str]:
    return [sys.executable, "-SE", leash.__file__, sign, *command]


def test_a_leash_becomes_its_command(alive: Alive) -> None:
    script = "import os, sys; print(os.getpid(), os.environ['LEASH_PARENT'], *sys.argv[1:]); sys.exit(5)"
    environ = os.environ | {"LEASH_PARENT": str(os.getpid())}
    process = subprocess.Popen(
        on_leash("KILL", sys.executable, "-c", script, "a b", "c"), env=environ, stdout=subprocess.PIPE, text=True
    )
    assert process.communicate()[0] == f"{process.pid} {process.pid} a b c\n"
    assert process.returncode == 5


def test_a_leash_refuses_to_start_anything_when_its_parent_is_already_gone(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    environ = os.environ | {"LEASH_PARENT": str(gone.pid)}
    done = subprocess.run(
        on_leash("TERM", "touch", str(tmp_path / "started")), env=environ, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"parent {gone.pid} is gone" in done.stderr
    assert not (tmp_path / "started").exists()


# What stands for an actor, for torchrun and for a rank. Rank and launcher are in sessions of their own.
ACTOR = """
import os, subprocess, sys
os.environ["LEASH_PARENT"] = str(os.getpid())
subprocess.Popen(sys.argv[1:], start_new_session=True).wait()
"""
LAUNCHER = """
import pathlib, signal, subprocess, sys
def told(*_):
    pathlib.Path("told").write_text("SIGTERM")
    sys.exit()
signal.signal(signal.SIGTERM, told)
subprocess.Popen(sys.argv[1:], start_new_session=True).wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a parent-death signal is Linux's")
def test_killing_the_parent_ends_the_launcher_by_sigterm_and_the_rank_whatever_it_ignores(
    tmp_path: Path, alive: Alive, until: Until
) -> None:
    rank = ["sh", "-c", "trap '' TERM HUP; echo up > up; exec sleep 1000"]
    launcher = on_leash("TERM", sys.executable, "-c", LAUNCHER, *on_leash("KILL", *rank))
    actor = subprocess.Popen([sys.executable, "-c", ACTOR, *launcher], cwd=tmp_path)
    until(lambda: (tmp_path / "up").exists(), 10, "the rank is up")
    assert len(alive()) == 3
    actor.kill()
    actor.wait()
    until(lambda: not alive(), 5, "launcher and rank are gone")
    assert (tmp_path / "told").read_text() == "SIGTERM"


TINY = GPTConfig(vocab_size=40, layers=2, dim=16, heads=4, kv_heads=2, rope_dims=4)


def write_job(folder: Path, job: Job) -> Path:
    (folder / "job.json").write_text(json.dumps(encode(job)), encoding="utf-8")
    return folder / "job.json"


def test_a_stage_under_torchrun_gives_the_artifact_that_it_gives_in_one_process(
    tmp_path: Path, alive: Alive, until: Until
) -> None:
    (tmp_path / "train").mkdir()
    write_container(tmp_path / "train" / CHECKPOINT, TINY.build().state_dict())
    job = Job(config=RunConfig(net=TINY), seed=3, corpus="", stage="pack", inputs={"train": str(tmp_path / "train")})
    out = tmp_path / "out"
    log, own = tmp_path / "log.txt", tmp_path / TORCHRUN
    ended = gang(torchrun_command("pack", 1, write_job(tmp_path, job), out, log), own)
    assert ended == Ended(exit_code=0), log.read_text() + own.read_text()
    until(lambda: not alive(), GONE_S, "everybody has ended")

    (tmp_path / "here").mkdir()
    metrics = pack_stage(job, tmp_path / "here", Gang())
    report = read_report(out)
    assert report.metrics == metrics
    assert (out / ARTIFACT).read_bytes() == (tmp_path / "here" / ARTIFACT).read_bytes()
    assert (report.stage, report.seed, report.facts["ranks"]) == ("pack", 3, 1)
    assert "Serialized model" in log.read_text()
    assert own.read_text() == ""


def test_of_a_failed_rank_torchrun_s_words_are_kept_apart_until_they_are_asked_for(tmp_path: Path) -> None:
    log, own = tmp_path / "log.txt", tmp_path / TORCHRUN
    ended = gang(torchrun_command("pack", 1, tmp_path / "no-job.json", tmp_path / "out", log), own)
    assert ended.exit_code == 1
    said = log.read_text()
    assert "no-job.json" in said
    assert "ChildFailedError" not in said
    assert "ChildFailedError" in own.read_text()
    add_torchrun_s_words(tmp_path)
    assert log.read_text() == said + own.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="a parent-death signal is Linux's")
def test_killing_torchrun_leaves_no_rank_alive(tmp_path: Path, corpus: Corpus, alive: Alive, until: Until) -> None:
    train = TrainConfig(steps=10**9, batch_tokens=32, seq_len=16, micro_seqs=1, warmup_steps=0, log_every=1)
    config = RunConfig(net=replace(TINY, vocab_size=corpus.vocab_size), train=train)
    path = write_job(tmp_path, Job(config=config, seed=3, corpus=str(corpus.folder), stage="train"))
    log = tmp_path / "log.txt"

    async def kill() -> Ended:
        task = asyncio.create_task(
            run_gang(torchrun_command("train", 2, path, tmp_path / "out", log), 1, tmp_path / TORCHRUN, watchdog(log))
        )
        await asyncio.to_thread(until, lambda: log.exists() and "step:2/" in log.read_text(), 60, "the gang trains")
        (launcher,) = (process for process in alive() if "torch.distributed.run" in process.cmdline())
        ranks = [process for process in alive() if process.environ().get("RANK") in ("0", "1")]
        assert len(ranks) == 2
        assert {os.getsid(rank.pid) for rank in ranks}.isdisjoint({os.getsid(launcher.pid)}), "out of killpg's reach"
        launcher.kill()
        return await task

    assert asyncio.run(kill()) == Ended(exit_code=-signal.SIGKILL)
    until(lambda: not alive(), 5, "both ranks are gone")
    with pytest.raises(ValueError, match="no valid report"):
        read_report(tmp_path / "out")


def test_ranks_meet_at_a_free_port_and_on_this_machine_only() -> None:
    command = torchrun_command("train", 8, Path("job.json"), Path("out"), Path("log.txt"))
    assert "--standalone" in command
    assert "--local-addr=127.0.0.1" in command
    assert "--nproc-per-node=8" in command
    assert not [word for word in command if "port" in word or "endpoint" in word]
