from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.adapt.adam import AdamRule
from model.adapt.lora import DocumentLora
from model.adapt.muon_ttt import MuonRule
from model.adapt.prequant import Prequant
from model.adapt.sgd import SgdRule
from model.adapt.stage import AdaptConfig
from model.adapt.ttt import Ttt
from model.environment import FIELD_NAMES
from model.net.bigram import BigramHash
from model.net.parallel import ParallelResidual
from model.net.recurrence import Recurrence
from model.net.skip_gates import SkipGates
from model.net.smear import SmearGate
from model.net.value_embedding import ValueEmbedding
from model.net.value_residual import ValueResidual
from model.net.xsa import Xsa
from model.optim.parallel_muon import ParallelMuon
from model.optim.polar import PolarExpress
from model.optim.swa import Swa
from model.overlay import field_at
from model.quant.gptq import Gptq
from model.quant.qat import LateQat
from model.quant.sdclip import SdClip
from service.source import ROOT, reach
from sweeps.recipes.tiny import tiny

PACKAGES = ("model", "service", "sweeps")
THIRD_PARTY = {
    "brotli",
    "constriction",
    "flash_attn",
    "flash_attn_interface",
    "numpy",
    "sentencepiece",
    "torch",
    "triton",
    "zstandard",
}
"""What a gang may import beside the standard library."""


def files(package: str) -> dict[str, Path]:
    """Module name -> file."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


MODEL = files("model")
EVERYTHING = {name: path for package in PACKAGES for name, path in files(package).items()}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in EVERYTHING.items()}


def imports(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import anywhere in a module, with the name it imports from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node, "." * node.level + (node.module or "")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name


def test_there_is_something_to_check() -> None:
    assert {"model.train", "model.net.gpt", "model.__main__"} <= MODEL.keys()
    assert {"service.cli.app", "sweeps.recipes.tiny"} <= EVERYTHING.keys()


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_file_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(TREES[name])


@pytest.mark.parametrize("name", MODEL)
def test_model_imports_its_own_names_at_the_top_and_only_by_from_model_x_import(name: str) -> None:
    tree = TREES[name]
    for node, source in imports(tree):
        if source.startswith(".") or source.split(".")[0] in PACKAGES:
            assert isinstance(node, ast.ImportFrom), f"line {node.lineno}: import {source}"
            assert source.startswith("model."), f"line {node.lineno}: from {source}"
            assert node in tree.body, f"line {node.lineno}: {source} is imported below the top"
            assert all(alias.name != "*" and alias.asname is None for alias in node.names), f"line {node.lineno}"
            assert f"{source}.__init__" not in MODEL, f"line {node.lineno}: {source} is a package, not a module"


@pytest.mark.parametrize("name", MODEL)
def test_model_needs_nothing_but_torch_numpy_and_what_reads_tokens_and_artifacts(name: str) -> None:
    roots = {source.split(".")[0] for _, source in imports(TREES[name])}
    assert roots - sys.stdlib_module_names - {"model", "__future__"} <= THIRD_PARTY


def test_model_has_no_import_circles() -> None:
    order = reach(MODEL)
    assert len(order) == len(set(order))
    assert set(order) == MODEL.keys()


def defined(tree: ast.Module) -> Iterator[str]:
    """The names that a module itself defines at its top level."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def test_a_name_of_model_is_defined_in_one_module_only() -> None:
    """A bundle has one namespace, and a digest takes a class by its bare name."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in MODEL:
        for name in defined(TREES[module]):
            places[name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_an_import_of_model_never_hides_a_name_of_another_module() -> None:
    """In one namespace, a third-party name must mean the same everywhere, and none may be one of ours."""
    ours = {name for module in MODEL for name in defined(TREES[module])}
    meaning: dict[str, set[str]] = defaultdict(set)
    for module in MODEL:
        for node, source in imports(TREES[module]):
            if source.split(".")[0] != "model" and node in TREES[module].body:
                for alias in node.names:
                    bound = alias.asname or alias.name.split(".")[0]
                    what = f"{source}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.asname and source
                    meaning[bound].add(what or bound)
    assert {name: sorted(found) for name, found in meaning.items() if len(found) > 1} == {}
    assert ours & meaning.keys() == set()


@pytest.mark.parametrize("name", MODEL)
def test_importing_model_runs_nothing_but_definitions(name: str) -> None:
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in TREES[name].body:
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        assert text or main or isinstance(node, allowed), f"line {node.lineno}: {ast.unparse(node)}"
        assert not main or name.endswith(".__main__"), f"line {node.lineno}: a bundle would run this, too"


@pytest.mark.parametrize("name", MODEL)
def test_model_knows_neither_its_place_on_disk_nor_a_type_checker_s_branch(name: str) -> None:
    names = {node.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Name)}
    assert not names & {"__file__", "__path__", "TYPE_CHECKING"}
    assert "importlib.resources" not in {source for _, source in imports(TREES[name])}


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name.endswith("__init__")])
def test_a_package_of_model_and_service_holds_only_its_docstring(name: str) -> None:
    """What stood there would run without being part of a stage's key or of a bundle."""
    if not name.startswith("sweeps."):
        assert len(TREES[name].body) == 1


def config_classes(config: Any) -> Iterator[type]:
    """The dataclasses in a config, each once."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        yield type(config)
        for field in dataclasses.fields(config):
            yield from config_classes(getattr(config, field.name))


def everything_on() -> Any:
    """The tiny config with all that a recipe can turn on, and every kind of update rule."""
    config = tiny().config
    scorers = Ttt(rule=SgdRule(), score_with=Ttt(rule=MuonRule(), score_with=DocumentLora()))
    score = dataclasses.replace(config.score, ttt=scorers)
    net = dataclasses.replace(
        config.net,
        skip_gates=SkipGates(),
        bigram=BigramHash(),
        smear=SmearGate(),
        value_embedding=ValueEmbedding(),
        value_residual=ValueResidual(),
        xsa=Xsa(last=3),
        parallel=ParallelResidual(first=2),
        recurrence=Recurrence(first=1, last=1),
    )
    optim = dataclasses.replace(config.train.optim, orthogonaliser=PolarExpress(), sharing=ParallelMuon())
    train = dataclasses.replace(config.train, optim=optim, swa=Swa(), qat=LateQat())
    adapt = AdaptConfig(prequant=Prequant(rule=AdamRule()))
    pack = dataclasses.replace(config.pack, matrices=SdClip(), tables=SdClip(), gptq=Gptq())
    return dataclasses.replace(config, net=net, train=train, adapt=adapt, pack=pack, score=score)


CONFIG_FIELDS = sorted(
    {(kind, field.name) for kind in config_classes(everything_on()) for field in dataclasses.fields(kind)},
    key=lambda row: (row[0].__name__, row[1]),
)


def reads(field: str) -> Iterator[str]:
    """Where ``field`` is read as an attribute, also by getattr, beyond what only validates or copies a config."""
    for module in MODEL:
        if module in ("model.environment", "model.overlay", "model.codec"):
            continue
        for node in ast.walk(skip_validation(TREES[module])):
            if isinstance(node, ast.Attribute) and node.attr == field and isinstance(node.ctx, ast.Load):
                yield f"{module}:{node.lineno}"
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                named = [n for n in ast.walk(node) if isinstance(n, ast.Constant) and n.value == field]
                calls = [n for n in ast.walk(node) if isinstance(n, ast.Call) and ast.unparse(n.func) == "getattr"]
                if named and calls:
                    yield f"{module}:{node.lineno}"


def skip_validation(tree: ast.Module) -> ast.Module:
    """A copy of ``tree`` without any ``__post_init__``: a field that is only checked there decides nothing."""
    tree = ast.parse(ast.unparse(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            kept = [n for n in node.body if not (isinstance(n, ast.FunctionDef) and n.name == "__post_init__")]
            node.body = kept or [ast.Pass()]
    return tree


@pytest.mark.parametrize(
    ("kind", "field"), CONFIG_FIELDS, ids=[f"{kind.__name__}.{field}" for kind, field in CONFIG_FIELDS]
)
def test_every_option_of_model_is_read_somewhere(kind: type, field: str) -> None:
    assert list(reads(field)), f"nothing reads {kind.__name__}.{field}"


def test_an_option_that_nothing_reads_would_be_found() -> None:
    assert list(reads("qk_gain"))
    assert not list(reads("an_option_nobody_reads"))


@pytest.mark.parametrize("path", FIELD_NAMES.values())
def test_every_variable_of_the_field_sets_something_that_a_recipe_can_have(path: str) -> None:
    field_at(everything_on(), path)


BLOCKED = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Blocker())
for name in {wanted}:
    importlib.import_module(name)
print("imported")
"""


def import_without(blocked: set[str], wanted: list[str]) -> subprocess.CompletedProcess[str]:
    script = BLOCKED.format(blocked=blocked, wanted=wanted)
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)


def test_a_head_node_without_torch_ray_and_mlflow_can_plan_read_and_verify() -> None:
    wanted = [name.removesuffix(".__init__") for name in files("service") if not name.startswith("service.adapters.")]
    done = import_without({"torch", "ray", "mlflow"}, wanted)
    assert done.stdout == "imported\n", done.stderr


def test_a_gang_needs_nothing_of_what_orchestrates_it() -> None:
    blocked = {"ray", "mlflow", "typer", "rich", "scipy", "matplotlib", "fsspec", "optuna", "service", "sweeps"}
    wanted = [name.removesuffix(".__init__") for name in MODEL if name != "model.__main__"]
    done = import_without(blocked, [*wanted, "model.__main__"])
    assert done.stdout == "imported\n", done.stderr


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name.startswith("service.")])
def test_only_adapters_touch_ray_and_mlflow_and_nothing_in_service_torch(name: str) -> None:
    roots = {source.split(".")[0] for _, source in imports(TREES[name])}
    assert "torch" not in roots
    assert "sweeps" not in roots
    if not name.startswith("service.adapters."):
        assert not roots & {"ray", "mlflow"}


def test_a_rank_starts_without_the_compiler() -> None:
    """It takes a second of each stage's start, and on a CPU nothing is compiled."""
    script = "import sys, model.rank, model.train, model.score.stage; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
