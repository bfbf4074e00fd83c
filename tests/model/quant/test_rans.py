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
        with pytest.raises(ValueError, match="matrices|compressed"):
            decode_matrices(wrong, [shape])


WRITTEN = """
dvGvynXuKHkSFiLMcTgAQCU4gnc+YLjozfGAxLKzVLIvodJdop0k0uSwRHEupXPiGQGs3+nQb6B48b9ZWMGTzFpkJ8s23xnclGefk0b69sBpHBSCXusZ
TvS3wHd+6OWh2XfxulnibvxLMv9McZehkkPYVhQmkYgiqzen/mlNIpgSU9H7wZyb2dHu3GAKzpQ0P53TdcC19ImxIARm6W3YgY5VegByO1DKdcQRx2r/
y+xMUUbYQjtcv/i7N12OzgxmzlPhvu7/g9JrCPmc/w2kaSh7vdv6LNoe/cx6TEp+xA3R3EyHzlDN5qcIDiuphlKBjTvWe/LHrHs3rMWeaZzSIebv3+Ra
1v9iU+94R7bqWORoenielvSh8vrEWHfWUQw5kSCvHakeAPX4bBeURr/n+ZmKkURUkAvZe+4RJEldzamYgO5/Kqj63wJoExMB59RTV6ou4mvZO1ei4Va0
z7zCGxJJsn4ZibOVaOCoy/dWK3iPgzdleGTuZCipU17Q4jUweTDK2j1aBOig+oLPH7SIYKgjBY0HGP4S5U4s9dFMWF6RxMo5h1JbjUJzvNbPyetVm0Q0
mLuOEveB19IrNCj26YrA9Ybcd2fhtvSg+IS9HgTkBAbkeN6zpC7nwusalPqsZmO+HBK1D4JT9LgDt+nmtmQBGtBOmMbipOcY7GZ4xq7/hF+LJ+D/ZBgQ
DuS3VkEkII++lyxparQMgi9EFtPqGo2VWR3vnIZtWMTcQ4vpfDBDud3cT1uexo2VBISBeMMVf6tpY97DIKPRuc1BB9EZqtni/heYm15rj5MkJqT8Jw+z
c9EWlYLVelWUd1aohv9H1FDeIsP6pN1kq0A8Rn0Vy9hUbt6mgFpFwYBetxEg7XsB6as4usOfeG1w/9bCRm0QFUXsT+ADzkqC3Qgu5zD+WMCcpR3Y/paN
oYjupquAr5IVXgUPAZzIrLfRGC4NuAlF5p/Jn+WNyggr65XdEHLcfGZdC/KmcxmYSul69dUnVuvtdmtyHSws/1SNbQktOIpe3X9Xd6rGeTnC2IWAQkZk
f3YCefa8Wh29CgAAAA==
"""
