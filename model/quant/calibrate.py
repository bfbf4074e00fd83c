"""What the network sees and feels on calibration tokens: inputs of its matrices, and how much its loss minds a weight.

The tokens are of the train split or the network's own; the validation split is never opened here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.data.batches import Batches
from model.data.shards import open_corpus
from model.gang import Gang
from model.job import Job
from model.net.gpt import GPT
from model.net.linear import Linear


def net_of(weights: Mapping[str, Tensor], job: Job, gang: Gang) -> GPT:
    """The network of the job with ``weights``, on the gang's device."""
    net: GPT = job.config.net.build()
    net.load_state_dict(dict(weights))
    return net.to(gang.device).eval()


def train_rows(job: Job, batches: int, batch_seqs: int, gang: Gang) -> Iterable[tuple[Tensor, Tensor]]:
    """This rank's inputs and targets (B/W, T) of the first so many batches of the train split."""
    corpus = open_corpus(Path(job.corpus), job.corpus_digest)
    seqs = -(-batch_seqs // gang.world) * gang.world
    rows = Batches(
        tokens=corpus.tokens("train"),
        seq_len=job.config.train.seq_len,
        batch_seqs=seqs,
        rank=gang.rank,
        world=gang.world,
    )
    for step in range(batches):
        gang.beat()
        inputs, targets = rows(step)
        yield inputs.to(gang.device), targets.to(gang.device)


def own_rows(net: GPT, count: int, length: int, temperature: float, seed: int, gang: Gang) -> Tensor:
    """``count`` texts of ``length`` tokens that the network makes up, (count, length), a function of the seed and the
    rank; each begins with a token drawn evenly (openai/parameter-golf #1019)."""
    generator = torch.Generator(device=gang.device).manual_seed(seed * 1009 + gang.rank)
    vocab = len(net.embedding)
    ids = torch.randint(0, vocab, (count, 1), generator=generator, device=gang.device)
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=gang.device.type == "cuda"):
        while ids.shape[1] < length:
            gang.beat()
            logits = net.logits(net.hidden(ids, ids.shape[1] - 1)[:, -1])
            drawn = torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=generator)
            ids = torch.cat([ids, drawn], dim=1)
    return ids


def hessians_of(net: GPT, rows: Iterable[Tensor], gang: Gang) -> tuple[dict[str, Tensor], int]:
    """The mean of X^T X (I, I), float32, over the inputs X of each matrix on ids (B, T), by its name; and how many
    tokens that were. The head's inputs are the final-normed hidden states, also where it is the embedding (#1394)."""
    sums: dict[str, Tensor] = {}

    def add(name: str, x: Tensor) -> None:
        x = x.detach().flatten(0, -2).float()
        sums[name] = sums.get(name, 0) + x.T @ x

    def seen(name: str) -> Callable[..., None]:
        return lambda _, inputs: add(name, inputs[0])

    head = "embedding" if net.head is None else "head.weight"
    layers = {name: module for name, module in net.named_modules() if isinstance(module, Linear) and name != "head"}
    hooks = [module.register_forward_pre_hook(seen(f"{name}.weight")) for name, module in layers.items()]
    tokens = 0
    try:
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=gang.device.type == "cuda"):
            for ids in rows:
                add(head, net.hidden(ids))
                tokens += ids.numel()
    finally:
        for hook in hooks:
            hook.remove()
    total = int(gang.sum_(torch.tensor(tokens, device=gang.device)))
    return {name: gang.sum_(sums[name]) / total for name in sorted(sums)}, total


def loss_curvature(net: GPT, rows: Iterable[tuple[Tensor, Tensor]], gang: Gang) -> dict[str, Tensor]:
    """How much the loss, in nats per token, minds each weight: the squared gradient of a sequence's mean loss, times
    its tokens, averaged (the diagonal of the Fisher information); a weight off by e costs about e^2 / 2 times that."""
    named = dict(net.named_parameters())
    sums = {name: torch.zeros_like(weight) for name, weight in named.items()}
    count = 0
    for inputs, targets in rows:
        for x, y in zip(inputs.split(1), targets.split(1), strict=True):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=gang.device.type == "cuda"):
                loss = net.loss(x, y)
            gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for name, gradient in zip(named, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.float().square() * x.shape[1]
            count += 1
    total = int(gang.sum_(torch.tensor(count, device=gang.device)))
    return {name: gang.sum_(sums[name]) / total for name in sorted(sums)}
