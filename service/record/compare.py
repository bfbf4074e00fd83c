"""What a file claims against what was recomputed: one line for each difference, with both values.

A printed number agrees when it is within half a unit of its own last digit, so that 1.0791 may stand for 1.07912726;
a whole number is a count and must be equal. There is no other tolerance.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from service.record.logs import half_unit

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
LONGEST = 20_000_000
"""Bytes of a file that is read at all."""


def read_text(path: Path) -> str:
    """The text of a file in a record folder.

    Raises:
        ValueError: it is missing, unreadable, oversized or not UTF-8.
    """
    try:
        if path.stat().st_size > LONGEST or not path.is_file():
            raise ValueError(f"not a file of at most {LONGEST:,} bytes")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError("missing") from None
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def read_object(path: Path, *, printed: bool = False) -> dict[str, Any]:
    """A JSON object; with ``printed``, fractions are ``Decimal`` and so keep their digits.

    Raises:
        ValueError: the file can't be read, or doesn't hold one.
    """
    try:
        data = json.loads(read_text(path), parse_float=Decimal if printed else _finite, parse_constant=_refuse)
    except (RecursionError, ArithmeticError) as error:
        raise ValueError(f"not JSON that can be read ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise ValueError(f"not a JSON object but a {type(data).__name__}")
    return data


def agrees(found: Decimal, expected: Decimal) -> bool:
    """Whether ``found``, as printed, is ``expected`` rounded to the digits that ``found`` has."""
    try:
        return abs(found - expected) <= half_unit(found)
    except ArithmeticError:
        return False


def json_differences(found: Any, expected: Any, where: str) -> Iterator[str]:
    """Lines for every place where ``found`` isn't ``expected``; keys that only ``found`` has count below the top."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            place = f"{where}{'.' if ':' in where else ': '}{key}"
            if key in found:
                yield from json_differences(found[key], value, place)
            else:
                yield f"{place} is missing, recomputed {_shown(value)}"
        if ":" in where:
            extra = sorted(found.keys() - expected.keys())
            yield from (f"{where}.{key} is {_shown(found[key])}, recomputed: no such thing" for key in extra)
    elif not _same(found, expected):
        yield f"{where} is {_shown(found)}, recomputed {_shown(expected)}"


def line_differences(found: str, expected: str, where: str) -> Iterator[str]:
    """Lines for every line of ``expected`` with a number in it that ``found`` doesn't have, by its nearest one."""
    lines, wanted = ([line.rstrip() for line in text.splitlines()] for text in (found, expected))
    known = set(wanted)
    free = [line for line in lines if line and line not in known]
    for line in wanted:
        if not re.search(r"\d", line) or line in lines:
            continue
        twins = [other for other in free if NUMBER.sub("#", other) == NUMBER.sub("#", line)]
        if twins:
            yield from _number_differences(min(twins, key=lambda twin: len(_unequal(twin, line))), line, where)
            continue
        near = difflib.get_close_matches(line, free, n=1, cutoff=0.5)
        yield f"{where}: says {near[0] if near else 'nothing like it'!r}, recomputed {line!r}"


def _number_differences(found: str, expected: str, where: str) -> Iterator[str]:
    for number, right in _unequal(found, expected):
        yield f"{where}: says {number}, recomputed {right}, in the line {found!r}"


def _unequal(found: str, expected: str) -> list[tuple[str, str]]:
    pairs = zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True)
    return [(number, right) for number, right in pairs if not agrees(_decimal(number), _decimal(right))]


def _decimal(number: str) -> Decimal:
    return Decimal(number.replace(",", ""))


def _same(found: Any, expected: Any) -> bool:
    if _is_number(found) and _is_number(expected):
        return agrees(Decimal(found), Decimal(str(expected)))
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return type(found) is type(expected) and bool(found == expected)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return str(value) if _is_number(value) else json.dumps(value, default=str, sort_keys=True)


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")
