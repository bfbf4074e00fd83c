"""Whether a Ray head is at an address, found out in seconds: ray.init itself waits for minutes where none is."""

from __future__ import annotations

import os
import socket

from service.errors import ClusterError

KNOCK_S = 5.0
"""How long a machine may take to let us in."""
ANSWER_S = 8.0
"""How long a head may take to answer then, on a busy machine."""
BY_RAY = ("auto", "local")
"""Words that Ray itself looks up or acts on."""
CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def knock(address: str) -> None:
    """Return when a Ray head may be at ``address``.

    Raises:
        ClusterError: it is no address of a head, nothing answers there, or something else does.
    """
    if address in BY_RAY:
        return
    if "//" in address:
        raise ClusterError(
            f"RAY_ADDRESS is {address!r}: give the head's own HOST:PORT, as 10.0.0.1:6379, and not that of Ray Client "
            "or of the dashboard; from outside the cluster: ray job submit --address http://HEAD:8265"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ClusterError(f"RAY_ADDRESS is {address!r}: no Ray cluster there, it must be HOST:PORT, as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address!r} ({error}): is it up, is RAY_ADDRESS right?"
        ) from error
    if os.environ.get("RAY_USE_TLS", "0") != "1":
        _ask(address)


def _ask(address: str) -> None:
    """A head knows the question, also where it doesn't answer it to us for want of a token."""
    import grpc  # Ray's own way to talk

    strange = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        question = channel.unary_unary(CHECK_ALIVE, request_serializer=None, response_deserializer=None)
        try:
            question(b"", timeout=ANSWER_S)
        except grpc.RpcError as error:
            if error.code() in strange:
                why = f"{error.code().name}: {error.details()}"
                raise ClusterError(
                    f"something listens at {address!r}, but it is no Ray head ({why}): RAY_ADDRESS is where the head "
                    "listens for nodes, port 6379 unless ray start was given another"
                ) from error
