from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.gang import Gang
from model.net.gpt import GPT
from model.score.bpb import Tally
from model.score.sliding import Sliding, hidden_states
from model.score.stream import Stream, window_rows
from model.score.windows import Window, WindowConfig

NetFactory = Callable[..., GPT]


def some_stream(targets: int, seed: int = 0) -> Stream:
    return Stream(tokens=np.random.default_rng(seed).integers(0, 40, targets + 1).astype(np.uint16))


@torch.no_grad()
def one_forward_a_token(net: GPT, tokens: np.ndarray, seq_len: int, stride: int) -> list[float]:
    """The loss of each target by a forward of its own, over the first window that reaches it."""
    nats = []
    for target in range(1, len(tokens)):
        index = 0
        while index * stride + seq_len < target:
            index += 1
        start = index * stride
        ids = torch.tensor(tokens[start : min(start + seq_len, len(tokens) - 1)].tolist())
        row = net.logits(net.hidden(ids[None]))[0, target - 1 - start].double()
        nats.append(float(row.logsumexp(0) - row[int(tokens[target])]))
    return nats


@pytest.mark.parametrize(
    ("targets", "seq_len", "stride", "batch_seqs"),
    [(50, 16, 4, 3), (50, 16, 16, 2), (37, 8, 3, 32), (10, 16, 4, 3), (16, 16, 1, 1), (21, 16, 1, 4), (1, 8, 8, 1)],
)
def test_sliding_equals_one_forward_a_token(
    random_net: NetFactory, targets: int, seq_len: int, stride: int, batch_seqs: int
) -> None:
    net = random_net(layers=3)
    stream = some_stream(targets)
    tally = Tally(stream, np.ones(targets, dtype=np.int64), Gang())
    Sliding().score_stream(
        net, stream, WindowConfig(seq_len=seq_len, stride=stride, batch_seqs=batch_seqs), tally, Gang()
    )
    expected = one_forward_a_token(net, stream.tokens, seq_len, stride)
    assert tally.nats.tolist() == pytest.approx(expected, abs=1e-5)
    assert tally.times.tolist() == [1] * targets


@pytest.mark.parametrize("world", [2, 3])
def test_worlds_give_exactly_the_tally_of_one_rank(random_net: NetFactory, world: int) -> None:
    net = random_net()
    stream = some_stream(101)
    windows = WindowConfig(seq_len=16, stride=3, batch_seqs=4)

    def tally_of(gang: Gang) -> Tally:
        tally = Tally(stream, np.ones(stream.targets, dtype=np.int64), gang)
        Sliding().score_stream(net, stream, windows, tally, gang)
        return tally

    alone = tally_of(Gang())
    ranks = [tally_of(Gang(rank=rank, world=world)) for rank in range(world)]
    assert torch.equal(torch.stack([rank.nats for rank in ranks]).sum(0), alone.nats)
    assert torch.equal(torch.stack([rank.times for rank in ranks]).sum(0, dtype=torch.int32), alone.times)
    assert all(0 < int(rank.times.sum()) < 101 for rank in ranks)


@pytest.mark.parametrize("first_row", [1, 5, 11])
@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_the_last_block_on_the_scored_rows_alone_gives_their_hidden_states(
    random_net: NetFactory, layers: int, first_row: int
) -> None:
    net, ids = random_net(layers=layers), torch.randint(0, 40, (3, 12))
    torch.testing.assert_close(hidden_states(net, ids, first_row), net.hidden(ids)[:, first_row:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("rows", "length"), [(1, 4), (7, 1000), (3, 3000), (70, 50)])
@torch.no_grad()
def test_hidden_states_are_the_network_s_however_many_there_are(random_net: NetFactory, rows: int, length: int) -> None:
    net = random_net()
    ids = torch.randint(0, 40, (rows, length))
    found = hidden_states(net, ids)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, net.hidden(ids), atol=1e-5, rtol=1e-4)


def test_rows_of_a_batch_are_inputs_and_the_tokens_one_further_on() -> None:
    stream = Stream(tokens=np.arange(20, dtype=np.uint16))
    batch = [Window(start=0, scored=4, stop=6), Window(start=13, scored=17, stop=19)]
    inputs, targets = window_rows(stream, batch, torch.device("cpu"))
    assert stream.targets == 19
    assert inputs.tolist() == [[0, 1, 2, 3, 4, 5], [13, 14, 15, 16, 17, 18]]
    assert targets.tolist() == [[1, 2, 3, 4, 5, 6], [14, 15, 16, 17, 18, 19]]


def test_scoring_leaves_no_gradient_and_no_changed_weight(random_net: NetFactory) -> None:
    net = random_net()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    assert not hidden_states(net, torch.zeros(1, 4, dtype=torch.long)).requires_grad
    stream = some_stream(30)
    tally = Tally(stream, np.ones(30, dtype=np.int64), Gang())
    Sliding().score_stream(net, stream, WindowConfig(seq_len=8, stride=4), tally, Gang())
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
