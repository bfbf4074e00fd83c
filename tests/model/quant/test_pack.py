from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from model.gang import Gang
from model.job import Job
from model.net.gpt import GPT
from model.quant.container import pack_container, write_container
from model.quant.pack import PackConfig, load_artifact, pack_stage, pack_weights, unpack_weights
from model.run import size_lines

NetFactory = Callable[..., GPT]
ALL = PackConfig(small_numel=0, codec="raw")


@pytest.fixture(scope="module")
def weights(random_net: NetFactory) -> dict[str, torch.Tensor]:
    return random_net(layers=3).state_dict()


def run_pack(weights: dict[str, torch.Tensor], folder: Path) -> dict[str, float]:
    """The pack stage over ``weights``; the artifact is ``folder/pack/artifact.bin``."""
    (folder / "train").mkdir()
    (folder / "pack").mkdir()
    write_container(folder / "train" / "checkpoint.bin", weights)
    config = SimpleNamespace(pack=PackConfig(small_numel=100, codec="lzma"))
    job = Job(config=config, seed=1, corpus="", inputs={"train": str(folder / "train")})
    return pack_stage(job, folder / "pack", Gang())


@pytest.mark.parametrize(("matrix_bits", "embed_bits"), [(6, 8), (4, 5), (8, 2)])
def test_matrices_come_back_within_half_a_step_of_their_bits(
    weights: dict[str, torch.Tensor], matrix_bits: int, embed_bits: int
) -> None:
    config = PackConfig(small_numel=0, matrix_bits=matrix_bits, embed_bits=embed_bits)
    restored = unpack_weights(pack_weights(weights, config))
    assert list(restored) == list(weights)
    for name, weight in weights.items():
        bits = embed_bits if name == "embedding" else matrix_bits
        if weight.ndim == 2:
            half_step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1) / 2
            assert ((restored[name] - weight).abs() <= half_step * 1.002).all(), name
        else:
            torch.testing.assert_close(restored[name], weight, atol=1e-7, rtol=2**-11)
        assert restored[name].dtype == torch.float32


def test_a_matrix_with_at_most_small_numel_weights_stays_float16(weights: dict[str, torch.Tensor]) -> None:
    size = weights["blocks.0.attention.query.weight"].numel()
    kept = pack_weights(weights, PackConfig(small_numel=size))
    rounded = pack_weights(weights, PackConfig(small_numel=size - 1))
    assert kept["blocks.0.attention.query.weight"].dtype == torch.float16
    assert rounded["blocks.0.attention.query.weight"].dtype == torch.int8
    assert rounded["blocks.0.attention.query.weight#scale"].shape == (16,)
    assert all(packed["blocks.0.attention_scale"].dtype == torch.float16 for packed in (kept, rounded))


def test_the_artifact_restores_a_network_with_exactly_the_rounded_weights(
    random_net: NetFactory, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run_pack(weights, tmp_path)
    net = random_net(seed=5, layers=3)
    net.load_state_dict(load_artifact(tmp_path / "pack" / "artifact.bin"))
    reference = unpack_weights(pack_weights(weights, PackConfig(small_numel=100, codec="lzma")))
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, reference[name])


def test_the_stage_reports_and_logs_the_file_s_size_and_the_rounding_error(
    weights: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run_pack(weights, tmp_path)
    size = (tmp_path / "pack" / "artifact.bin").stat().st_size
    assert metrics["model_bytes"] == size
    line = re.search(r"^Serialized model ([^:\n]+): (\d+) bytes", capsys.readouterr().out, re.MULTILINE)
    assert line is not None
    assert line.groups() == ("int6+lzma", str(size))
    restored = load_artifact(tmp_path / "pack" / "artifact.bin")
    errors = torch.cat([(weights[name] - restored[name]).double().flatten() for name in weights])
    assert metrics["weight_rmse"] == pytest.approx(errors.square().mean().sqrt().item(), rel=1e-6)
    assert 0 < metrics["weight_rmse"] < 0.05


def test_only_the_chief_packs(tmp_path: Path) -> None:
    job = Job(config=SimpleNamespace(pack=ALL), seed=1, corpus="", inputs={"train": str(tmp_path / "nowhere")})
    assert pack_stage(job, tmp_path, Gang(rank=1, world=2)) == {}
    assert list(tmp_path.iterdir()) == []


def test_total_size_is_code_and_model_together_in_the_field_s_lines() -> None:
    text = "\n".join(size_lines(PackConfig(matrix_bits=5, codec="brotli"), model_bytes=15_900_000, code_bytes=70_000))
    code = re.search(r"^Code size[^:\n]*: (\d+) bytes", text, re.MULTILINE)
    total = re.search(r"^Total submission size[^:\n]*: (\d+) bytes", text, re.MULTILINE)
    assert code is not None
    assert total is not None
    assert (code[1], total[1]) == ("70000", "15970000")


def test_a_damaged_artifact_is_refused_with_its_path(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    run_pack(weights, tmp_path)
    path = tmp_path / "pack" / "artifact.bin"
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"artifact\.bin"):
                load_artifact(path)


def test_an_artifact_without_a_matrix_s_scales_is_refused_by_name(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    packed = pack_weights(weights, ALL)
    del packed["embedding#scale"]
    (tmp_path / "artifact.bin").write_bytes(pack_container(packed, "raw"))
    with pytest.raises(ValueError, match=r"artifact\.bin.*embedding#scale"):
        load_artifact(tmp_path / "artifact.bin")


@pytest.mark.parametrize(
    "change",
    [{"matrix_bits": 1}, {"embed_bits": 9}, {"small_numel": -1}, {"codec": "zip"}],
    ids=lambda c: next(iter(c)),
)
def test_a_knob_out_of_range_is_refused_by_name_with_its_value(change: dict[str, object]) -> None:
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        PackConfig(**change)  # type: ignore[arg-type]
