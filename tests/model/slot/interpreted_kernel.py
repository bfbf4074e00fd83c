"""``python interpreted_kernel.py IN OUT``: what the Triton kernel gives for each case in IN, by Triton's interpreter.

A process of its own, because the interpreter has to be chosen before Triton is first imported, as torch may do.
"""

from __future__ import annotations

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from model.slot.gradient_triton import triton_gradient

if __name__ == "__main__":
    found = []
    for z, offset, targets, cap in torch.load(sys.argv[1]):
        found.append(torch.full(offset.shape, torch.nan))
        triton_gradient(z, offset, targets, cap, found[-1])
    torch.save(found, sys.argv[2])
