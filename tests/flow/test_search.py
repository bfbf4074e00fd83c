"""Sweeps that decide while they run, on a real Ray: TPE's proposals, a race, and a budget."""

from __future__ import annotations

import json
import re

import pytest

from service.adapters.seals import write_seal
from tests.flow.conftest import Head, Place, wait_until

TPE = ["sweep", "slot", "--seeds", "1", "--search", "tpe", "--trials", "6", "--no-record", "--json"]
SPACE = ["--space", "score.slot.lr=0.001..0.1:log", "--space", "score.slot.steps=1,2"]
LEAVE = 4
"""Scored trials after which a driver is killed: those of the first round."""


@pytest.mark.long
def test_a_killed_search_proposes_the_same_and_computes_nothing_twice(place: Place, head: Head) -> None:
    words = [*TPE, *SPACE, *place.small(score__slot__steps=2)]
    driver = place.start(*words, **head.environment)

    def scored() -> set[str]:
        return {key for key in place.stages() if key.startswith("score-slot-")}

    wait_until("some trials are scored", lambda: len(scored()) >= LEAVE or driver.poll() is not None)
    driver.kill()
    driver.communicate()
    begun, finished = set(place.attempts()), set(place.stages())
    tries = {key: count for key, count in place.attempts().items() if key in finished}
    again = place.caddie(*words, **head.environment)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert result["search"] == {"how": "tpe", "trials": 6, "proposed": 6}
    assert [group["n"] for group in result["groups"]] == [1] * 7
    used = {key for group in result["groups"] for seed in group["seeds"].values() for key in seed["stages"].values()}
    assert begun <= used, "the killed driver had begun other trials"
    assert {key: place.attempts()[key] for key in tries} == tries, "a finished stage was computed again"
    assert len([key for key in place.stages() if key.startswith("train-")]) == 1
    tried = place.attempts()
    recorded = place.caddie(*words, "--record", "--non-record", RAY_ADDRESS="nobody")
    assert recorded.returncode == 0, recorded.stderr
    assert json.loads(recorded.stdout)["groups"] == result["groups"]
    assert json.loads(recorded.stdout)["record"]["ok"]
    assert {key: place.attempts()[key] for key in tried} == tried


@pytest.mark.long
def test_a_race_stops_who_cannot_win_and_confirms_the_winner_on_fresh_seeds(place: Place, head: Head) -> None:
    words = ["sweep", "slot", "--race", "--seeds", "1,2", "--confirm", "3,4", "--non-record", "--json"]
    # A step of 3 wrecks what SLOT fits, so that it can't win whatever the second seed says.
    words += ["--space", "score.slot.steps=2", "--space", "score.slot.lr=0.004,3.0", *place.small()]
    ended = place.caddie(*words, **head.environment)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    race = result["race"]
    assert (race["seeds_that_chose"], race["seeds_that_confirmed"]) == ([1, 2], [3, 4])
    (stopped,) = (group for group in result["groups"] if group["status"].startswith("stopped"))
    assert stopped["config"]["score.slot.lr"] == 3.0
    assert stopped["status"].startswith("stopped after 1 of 2 seeds: ")
    assert race["winner"] != stopped["config"]
    assert result["record"]["ok"], result["record"]["mismatches"]
    record = place.home / "records" / result["record"]["folder"].rpartition("/")[2]
    assert {path.name for path in record.glob("train_seed*.log")} == {"train_seed3.log", "train_seed4.log"}
    tried = place.attempts()
    again = place.caddie(*words, RAY_ADDRESS="nobody")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["race"] == race
    assert re.search(r"\d+ stages done, 0 to run", again.stderr)
    assert place.attempts() == tried


@pytest.mark.long
def test_a_budget_launches_what_it_pays_names_what_it_does_not_and_the_next_run_goes_on(
    place: Place, head: Head
) -> None:
    small = place.small(score__slot="none")
    first = place.caddie("run", "tiny", "--seeds", "9", *small, **head.environment)
    assert first.returncode == 0, first.stderr
    for path in (place.home / "stages").glob("*/key.json"):
        # As if these had taken a hundredth of a second: then a plan expects too little, and the budget is overrun.
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"gang_s": 0.01}), encoding="utf-8")
        write_seal(path.parent)
    words = ["run", "tiny", "--seeds", "1,2", *small, "--json"]
    short = place.caddie(*words, "--budget", "0.0001h", **head.environment)
    assert short.returncode == 1, short.stderr
    trained = [key for key in place.stages() if key.startswith("train-")]
    assert 1 < len(trained) <= 3, "one of seed 9, and what was launched at once"
    assert re.search(r"budget: .* GPU-h .* of 0\.0001 GPU-h .* spent; \d not launched for want of it", short.stderr)
    errors = [seed["error"] for seed in json.loads(short.stdout)["groups"][0]["seeds"].values()]
    assert all(re.search(r"stage \S+ of seed \d was not launched: it needs .*are left", error) for error in errors)
    tried = place.attempts()
    assert set(tried) == set(place.stages()), "what was refused was not begun"
    enough = place.caddie(*words, "--budget", "1h", **head.environment)
    assert enough.returncode == 0, enough.stderr
    assert [group["n"] for group in json.loads(enough.stdout)["groups"]] == [2]
    assert {key: place.attempts()[key] for key in tried} == tried, "a finished stage was computed again"
