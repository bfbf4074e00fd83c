"""The Engine on Ray: a cluster, a broker in it, and Tune for sweeps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from service.adapters.ray_broker import Broker
from service.adapters.ray_cluster import check_gang, ray_session
from service.adapters.stores import StoreAt
from service.errors import ClusterError
from service.money import Ledger
from service.nodes import Checks
from service.ports import Plan
from service.results import SeedResult
from service.spec import GangShape

CLOSE_S = 15.0
"""How long a driver that ends waits for its gangs' processes; the leash ends them in any case."""
GONE = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)
"""What Ray raises when an actor, or the node with its answer, has been lost."""


class RayEngine:
    """One driver's view of the cluster."""

    def __init__(self, at: StoreAt, ledger: Ledger | None = None, checks: Checks = Checks.AUTO) -> None:
        self.home = at.home
        self.broker: Any = Broker.remote(at, ledger, checks)  # type: ignore[attr-defined]

    def check(self, gang: GangShape) -> None:
        """Refuse a gang that no node can hold."""
        check_gang(gang)

    def start_seed(self, plan: Plan) -> Any:
        """Begin a seed's chain in the broker."""
        return self.broker.seed.remote(plan)

    def wait(self, handles: Sequence[Any]) -> list[SeedResult]:
        """Block until all have ended; short waits keep Ctrl-C alive."""
        todo = list(handles)
        while todo:
            _, todo = ray.wait(todo, num_returns=len(todo), timeout=1.0)
        results: list[SeedResult] = self._answer(list(handles))
        return results

    def outcome(self, plan: Plan) -> SeedResult:
        """Ask the broker, starting nothing."""
        result: SeedResult = self._answer(self.broker.seed.remote(plan, launch=False))
        return result

    def run_trials(self, name: str, plans: Sequence[Sequence[Plan]]) -> None:
        """A grid under Ray Tune."""
        from service.adapters.ray_tune import run_trials  # seconds to import, and a plain run needs no search

        ticket = self._answer(self.broker.take.remote(plans))
        run_trials(name, len(plans), self.broker, ticket, self.home / "tune")

    def account(self) -> Ledger | None:
        """What of the budget is spent."""
        ledger: Ledger | None = self._answer(self.broker.account.remote())
        return ledger

    def _answer(self, asked: Any) -> Any:
        """What the broker answers.

        Raises:
            ClusterError: it is gone.
        """
        try:
            return ray.get(asked)
        except GONE as error:
            first = str(error).strip().splitlines()[0]
            raise ClusterError(
                f"the broker of this run is gone: {first} Finished stages are kept; the same command goes on from them"
            ) from error

    def close(self) -> None:
        """End every gang of this driver."""
        with contextlib.suppress(Exception):
            ray.get(self.broker.close.remote(), timeout=CLOSE_S)
        ray.kill(self.broker)


@contextlib.contextmanager
def ray_engine(
    address: str | None, at: StoreAt, ledger: Ledger | None = None, checks: Checks = Checks.AUTO
) -> Iterator[RayEngine]:
    """An engine on the cluster at ``address``, or on a local Ray of its own that ends with it."""
    with ray_session(address):
        engine = RayEngine(at, ledger, checks)
        try:
            yield engine
        finally:
            engine.close()
