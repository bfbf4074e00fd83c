from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from model.net.gpt import GPTConfig
from model.score.slot import Slot
from service.errors import SpecError
from service.source import modules_of, reach, source_digest
from service.spec import GangShape

FILES = {
    "model/__init__.py": '"""A package."""\n',
    "model/leaf.py": "SIZE = 3\n\n\ndef area(side):\n    return side * side\n",
    "model/stem.py": "from model.leaf import area\n\n\ndef volume(side):\n    return area(side) * side\n",
    "model/deep/__init__.py": "",
    "model/deep/root.py": "from model.leaf import SIZE\nfrom model.stem import volume\n\nTOTAL = volume(SIZE)\n",
    "model/other.py": "from model.leaf import SIZE\n\nWIDTH = SIZE + 1\n",
}

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """``tree(leaf="...")``: a new root with the little package above, some files replaced."""
    count = 0

    def make(**changed: str) -> Path:
        nonlocal count
        count += 1
        root = tmp_path / f"root{count}"
        for name, text in FILES.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(changed.get(path.stem, text), encoding="utf-8")
        return root

    return make


def test_a_module_reaches_what_it_imports_directly_or_not_and_nothing_else(tree: Tree) -> None:
    root = tree()
    assert set(reach(["model.deep.root"], root)) == {"model.deep.root", "model.stem", "model.leaf"}
    assert reach(["model.leaf"], root) == ["model.leaf"]
    assert set(reach(["model.other", "model.stem"], root)) == {"model.other", "model.stem", "model.leaf"}


def test_every_module_follows_what_it_imports(tree: Tree) -> None:
    root = tree()
    order = reach(["model.other", "model.deep.root"], root)
    for place, name in enumerate(order):
        text = (root / name.replace(".", "/")).with_suffix(".py").read_text()
        imported = [line.split()[1] for line in text.splitlines() if line.startswith("from model")]
        assert set(imported) <= set(order[:place])


def test_the_order_does_not_depend_on_the_order_of_the_question(tree: Tree) -> None:
    root = tree()
    assert reach(["model.other", "model.deep.root"], root) == reach(["model.deep.root", "model.other"], root)


def test_an_import_inside_a_function_counts_too(tree: Tree) -> None:
    root = tree(other="def later():\n    from model.stem import volume\n    return volume(2)\n")
    assert set(reach(["model.other"], root)) == {"model.other", "model.stem", "model.leaf"}


def test_third_party_imports_are_no_part_of_the_closure(tree: Tree) -> None:
    root = tree(other="import math\nfrom models.leaf import SIZE\nfrom numpy import pi\n\nWIDTH = pi\n")
    assert reach(["model.other"], root) == ["model.other"]


def test_a_circle_is_refused_with_its_modules(tree: Tree) -> None:
    root = tree(leaf="from model.stem import volume\n\nSIZE = 3\n")
    with pytest.raises(SpecError, match="import circle") as refused:
        reach(["model.deep.root"], root)
    assert "model.leaf" in str(refused.value)
    assert "model.stem" in str(refused.value)


def test_a_module_that_is_not_there_is_refused_by_name(tree: Tree) -> None:
    root = tree(other="from model.gone import SIZE\n")
    with pytest.raises(SpecError, match=r"model\.gone"):
        reach(["model.other"], root)


SAME = {
    "a comment": (
        "# Why three?\nSIZE = 3  # It is odd.\n\n\ndef area(side):\n    # Squares only.\n    return side * side\n"
    ),
    "docstrings": (
        '"""Numbers."""\n\nSIZE = 3\n"""A prime."""\n\n\n'
        'def area(side):\n    """Of a square."""\n    return side * side\n'
    ),
    "blank lines": "\n\nSIZE = 3\ndef area(side):\n\n\n    return side * side\n\n\n",
    "layout": "SIZE=3\ndef area( side, ):\n  return (side\n      *side)\n",
}


@pytest.mark.parametrize("leaf", SAME.values(), ids=SAME)
def test_what_does_not_run_does_not_change_the_digest(tree: Tree, leaf: str) -> None:
    assert source_digest(["model.deep.root"], tree(leaf=leaf)) == source_digest(["model.deep.root"], tree())


def test_a_method_s_and_a_class_s_docstring_do_not_count_and_a_text_that_is_used_does(tree: Tree) -> None:
    bare = "class Box:\n    size: int = 3\n\n    def open(self):\n        return 'a box'\n"
    told = (
        'class Box:\n    """A box."""\n    size: int = 3\n    """Its size."""\n\n'
        '    def open(self):\n        """Open it."""\n        return "a box"\n'
    )
    digests = [source_digest(["model.other"], tree(other=text)) for text in (bare, told, told.replace("a box", "no"))]
    assert digests[0] == digests[1] != digests[2]


def test_a_function_that_loses_its_only_docstring_still_parses_and_counts_as_a_stub(tree: Tree) -> None:
    stub, told = "def later():\n    pass\n", 'def later():\n    """Not yet."""\n'
    assert source_digest(["model.other"], tree(other=told)) != source_digest(["model.other"], tree())
    assert source_digest(["model.other"], tree(other=told)) == source_digest(["model.other"], tree(other=stub))


@pytest.mark.parametrize(
    ("module", "before", "after"),
    [
        ("leaf", "SIZE = 3", "SIZE = 4"),
        ("leaf", "side * side", "side + side"),
        ("stem", "area(side) * side", "area(side)"),
        ("root", "volume(SIZE)", "volume(2)"),
    ],
)
def test_a_change_in_a_reached_module_changes_the_digest(tree: Tree, module: str, before: str, after: str) -> None:
    (text,) = (text for name, text in FILES.items() if Path(name).stem == module)
    assert before in text
    root = tree(**{module: text.replace(before, after)})
    assert source_digest(["model.deep.root"], root) != source_digest(["model.deep.root"], tree())


def test_a_change_in_a_module_that_is_not_reached_changes_nothing(tree: Tree) -> None:
    root = tree(other="WIDTH = 99\n")
    assert source_digest(["model.deep.root"], root) == source_digest(["model.deep.root"], tree())
    assert source_digest(["model.other"], root) != source_digest(["model.other"], tree())


def test_the_place_of_the_source_does_not_count(tree: Tree, tmp_path: Path) -> None:
    moved = shutil.copytree(tree(), tmp_path / "elsewhere" / "deeper")
    assert source_digest(["model.deep.root"], moved) == source_digest(["model.deep.root"], tree())


def test_the_same_text_in_another_module_is_another_source(tree: Tree) -> None:
    swapped = tree(leaf=FILES["model/leaf.py"], stem=FILES["model/leaf.py"])
    assert source_digest(["model.leaf"], swapped) != source_digest(["model.stem"], swapped)


@dataclass(frozen=True)
class Holder:
    net: GPTConfig
    scorers: tuple[Slot, ...]


def test_a_config_names_the_modules_of_its_classes_at_any_depth() -> None:
    value = {"held": Holder(GPTConfig(), (Slot(),)), "gang": [GangShape()], "number": 3, "none": None}
    assert modules_of(value) == {__name__, "model.net.gpt", "model.score.slot", "service.spec"}
    assert modules_of({}) == modules_of([]) == modules_of(3) == set()
