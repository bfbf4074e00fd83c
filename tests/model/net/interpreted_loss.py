"""``python interpreted_loss.py IN OUT``: losses, log-sums and gradients of the Triton kernels for each case in IN, by
Triton's interpreter. A process of its own, because that has to be chosen before Triton is first imported.
"""

from __future__ import annotations

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from model.net.capped_loss_triton import triton_loss_gradient, triton_nats

if __name__ == "__main__":
    found = []
    for raw, targets, grad, cap in torch.load(sys.argv[1]):
        nats, log_sum = triton_nats(raw, targets, cap)
        found.append((nats, log_sum, triton_loss_gradient(raw, targets, log_sum, grad, cap)))
    torch.save(found, sys.argv[2])
