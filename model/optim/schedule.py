"""Learning rate over progress, and the momentum warm-up of Muon."""

from __future__ import annotations


def warmdown(progress: float, fraction: float, floor: float) -> float:
    """The factor on every learning rate at ``progress`` in [0, 1]: 1, then linear to ``floor`` over the last part.

    The field's fraction form (openai/parameter-golf #1394, WARMDOWN_FRAC, MIN_LR): max((1 - f) / fraction, floor).
    """
    if fraction <= 0 or progress < 1 - fraction:
        return 1.0
    return max((1 - progress) / fraction, floor)


def warmdown_over(steps_left: float, steps: int, floor: float) -> float:
    """The factor with ``steps_left`` steps to go: 1, then linear to ``floor`` over the last ``steps``.

    The field's step form (WARMDOWN_ITERS). Under a clock it takes what is left at the pace so far, remaining seconds
    over seconds per step, so that the machine's speed decides when it begins.
    """
    return max(min(1.0, steps_left / steps), floor)


def momentum_at(step: int, start: float, end: float, warmup_steps: int) -> float:
    """Linear from ``start`` to ``end`` over ``warmup_steps`` steps (0.92 -> 0.99 over 1500 in the field)."""
    if warmup_steps <= 0:
        return end
    part = min(step / warmup_steps, 1.0)
    return (1 - part) * start + part * end
