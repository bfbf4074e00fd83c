from __future__ import annotations

import base64
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.quant.rans import decode_matrices, encode_matrices

matrices = hnp.arrays(
    np.int64, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(-128, 127)
) | st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(-128, 127)).map(lambda t: np.full(t[:2], t[2]))


def noise(rows: int, columns: int, spread: float, seed: int = 1, size: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Rounded normal values whose columns, and half as much their rows, differ in size; and those sizes."""
    random = np.random.default_rng(seed)
    sizes = size * np.exp(random.normal(0, spread / 2, (rows, 1)) + random.normal(0, spread, (1, columns)))
    return np.clip(np.rint(random.normal(0, 1, (rows, columns)) * sizes), -127, 127).astype(np.int64), sizes


def order_0_bytes(q: np.ndarray) -> float:
    counts = np.unique(q, return_counts=True)[1] / q.size
    return float(-(counts * np.log2(counts)).sum() * q.size / 8)


@given(several=st.lists(matrices, max_size=3))
@example(several=[])
@example(several=[np.zeros((3, 500), dtype=np.int64), np.full((1, 1), -128), np.eye(70, dtype=np.int64) * 127])
def test_any_matrices_come_back(several: list[np.ndarray]) -> None:
    found = decode_matrices(encode_matrices([q.copy() for q in several]), [q.shape for q in several])
    assert len(found) == len(several)
    assert all(np.array_equal(a, b) for a, b in zip(found, several, strict=True))


def test_blocks_of_every_size_come_back() -> None:
    q, _ = noise(300, 900, 0.5)
    before = q.copy()
    (found,) = decode_matrices(encode_matrices([q]), [q.shape])
    assert np.array_equal(found, before)
    assert np.array_equal(q, before), "the encoder leaves what it is given as it is"


@pytest.mark.parametrize("spread", [0.2, 0.4])
def test_a_matrix_takes_what_is_said_by_someone_who_knows_its_sizes_and_little_more(spread: float) -> None:
    """The bound: Shannon's, of normal values that are rounded, with the true size of each; by the error function."""
    q, sizes = noise(256, 1024, spread)
    erf = np.vectorize(math.erf)
    edges = [(q + off) / (sizes * math.sqrt(2)) for off in (-0.5, 0.5)]
    bound = -np.log2((erf(edges[1]) - erf(edges[0])) / 2).sum() / 8
    taken = len(encode_matrices([q]))
    assert bound < taken < 1.012 * bound
    assert taken < (0.99 if spread == 0.2 else 0.965) * order_0_bytes(q)


def test_even_noise_costs_its_entropy() -> None:
    """Nothing is to be gained: what the tables cost is within 0.6 % and 60 bytes."""
    random = np.random.default_rng(3)
    for q in (random.integers(-31, 32, (256, 512)), np.rint(random.normal(0, 2.4, (256, 512))).astype(np.int64)):
        assert len(encode_matrices([q])) < 1.006 * order_0_bytes(q) + 60


def test_later_matrices_profit_from_earlier_ones() -> None:
    alone = [noise(64, 64, 0.3, seed)[0] for seed in range(8)]
    assert len(encode_matrices(alone)) < sum(len(encode_matrices([q])) for q in alone) - 100


def test_what_was_written_before_still_reads() -> None:
    """The stream's format: this one was written when it was made."""
    state, values = 1, []
    for _ in range(24 * 48):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        values.append(sum(state >> shift & 15 for shift in (20, 28, 36, 44)) - 30)
    q = np.array(values).reshape(24, 48)
    (found,) = decode_matrices(base64.b64decode(WRITTEN), [(24, 48)])
    assert np.array_equal(found, q)


@pytest.mark.parametrize("cut", [4, 40, 400])
def test_words_that_are_missing_too_many_or_of_other_matrices_are_refused(cut: int) -> None:
    q, _ = noise(40, 60, 0.3)
    words = encode_matrices([q])
    for wrong, shape in (
        (words[:-cut], q.shape),
        (words + words[:cut], q.shape),
        (words, (40, 60 - cut % 59)),
        (words[:cut], q.shape),
    ):
        with pytest.raises(ValueError, match=r"matrices|compressed"):
            decode_matrices(wrong, [shape])


WRITTEN = """
aJOtS3D9KOvf3SXDYnQsuTMT3JuXKs259V4hknktHerSdPFmuSDwL5a1+WmdnxP74tMroBUWahu+eBIqbW4cntPUlU2JaalfTU+LK3X+LWy4MIDiUD5J
yBJXi3UgTUFTcPWtwGpQAsYMmotyswYBnmv0qX2YcAqSUS1pdPP/Vrg0fXyy+uuJS8vdXeY1Jiu/xtH6oEtjA+RQ1/dAsLLG9//ZSM2QmByu054Jn+68
/D7GUZJPTmUTQ5d2Cz6HdLWxubYMl3/zHCufHouIuHr5wz1mkI9F6Nf4bZBGtkU54FhHRgLyAZl+/7mzx6OzssVvJ+Cbba0R8zwpq5EXMy5w9iaLjUcz
Z6Mfn4y2Hg7qyXptbgXmt0wAO2QLNuFoceIQhNjmjTnn/wEtJq/jrTGDN1X/QrO6Si4xZV/qPkgDzvDfFURHOskxov6nzA3Ec3JTIwIEjve4Yhe7of8A
zgz4nhclsOi91oG7U8CkBc6KOHJD/U7xca1R99iOOj6SGc9RmIUElcX3epGo9JA1y20EFMEUoIHrzwrO3h1Xt+iP0L8Jjl8NnxsZ8R45mcVU1Y0lo8l4
cy4v5/DvqZ7mFXkmWNwy8MCIdF4dIWcI2kqTjqLOoLRCpgDB5ogUBCJ7QuwNXJ5e87rs8VWUzOKZPo+KCbqpx3RtGNZcuLnAhBGuWRfiKANy9YH6ui39
RCqICuaKs2Nr6EQaGk+iRLQ7erxFxyRK/4+uvtwB8cpN1Pdd6RkQ+w+HUhqN+3Kgnv2OnIYHhlHpeM5y0eqm0pncdN1eAdnu/fRJQRHthyA05F4Go1s3
9Xm5e2aQFR2OTdKHGjEPhUiHLYEDPxq/W/aDtkzwlnmG2zsKcuRcqyhIqmBgw/hHWVs2QynINz12GLcT8weo6vppEnDtAJ3XSv7SbyygXixmB7uKIADQ
nEOpc2DI190J2P85u3iDysqIKb8aLi5CO+hEcOnnHp1b1UPgU7Oy3iPAHVfmkd3HWt1YhSMS+J7eT+pFKU7Yg0NDzuQGD4CfT2yFlZ7EZXwGFJdU2x0d
kJvN2AM=
"""
