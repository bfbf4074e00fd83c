"""A slice of ``make chaos``: four fixed strikes of four kinds, and what must come of each."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from service.faults import Point
from tests.chaos.episode import Episode, failed
from tests.chaos.strikes import Kind, Strike
from tests.chaos.world import World
from tests.flow.conftest import HEADS, Head

CHAINS = {
    "the broker is killed, then a finished stage is damaged": (
        Strike(kind=Kind.PROCESS, where="broker", how="kill", number=0.5),
        Strike(kind=Kind.DAMAGE, where="any", how="flip"),
    ),
    "the driver is killed while it writes MLflow": (
        Strike(kind=Kind.POINT, where=str(Point.RUN_CHANGED), how="kill", number=1),
    ),
    "a rank is killed": (Strike(kind=Kind.PROCESS, where="rank", how="kill", number=0.5),),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, head: Head) -> Iterator[World]:
    """A reference of one seed, and a cluster of our own whose processes know the list of strikes."""
    world = World(tmp_path_factory.mktemp("chaos"), seeds="1", others=tuple(HEADS))
    try:
        world.prepare()
        assert world.cluster is not None
        nodes = world.cluster.nodes
        HEADS.extend(nodes)
        yield world
        for node in nodes:
            HEADS.remove(node)
    finally:
        world.close()


@pytest.mark.parametrize(
    "chain",
    [
        # The first has the most to mend; all of them are in `make long`, and many more in `make chaos`.
        pytest.param(chain, id=name, marks=[pytest.mark.long] if number else [])
        for number, (name, chain) in enumerate(CHAINS.items())
    ],
)
def test_whatever_struck_the_same_command_ends_with_the_same_record_and_nothing_is_done_twice(
    world: World, chain: tuple[Strike, ...]
) -> None:
    episode = Episode(world, chain, random.Random(7))
    outcomes = episode.play()
    assert [outcome.landed for outcome in outcomes if outcome.strike] == [True] * len(chain)
    assert failed(outcomes) == []
    assert outcomes[-1].finished


def test_an_undisturbed_first_run_comes_by_every_point_but_the_one_of_runs_that_were_there(world: World) -> None:
    assert world.told["hits"] == sorted(str(point) for point in Point if point is not Point.RUN_CHANGED)
