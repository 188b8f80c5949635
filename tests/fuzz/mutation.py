"""Damage from a seeded generator: to bytes, and to trees of plain values."""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Sequence
from random import Random
from typing import Any

__all__ = ["ODD", "mutated_bytes", "mutated_tree", "parse_plain", "write_plain"]

_NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"-0",
    b"9" * 30,
    b"9" * 6000,
    b"0x7fffffff",
    b"1.5",
    b"2147483648",
    b"nan",
    b"65536",
)
_BYTES = (b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x80" * 4, b"\n", b'"', b"\\", b"{" * 300)
_LONGEST_REPEAT = 1 << 14

#: Values that stand where others are expected.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 1000, 65_536, 10**6, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400),
    *(0.0, -0.5, 0.5, 1.5, 1e308, float("inf"), float("-inf"), float("nan")),
    *("", "x", "0", "-1", "true", "\x00", "\ud800", "x" * 5000, "../..", "~", "{0..9}"),
    *([], {}, (), [None], [0], [[]], [1, 2, 3], {"": None}, {"a": 1}, {0: 0}, b"", b"\xff"),
    *([0] * 5000, {str(i): i for i in range(2000)}),
)


def mutated_bytes(data: bytes, rng: Random, tokens: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """One to eight changes."""
    out = bytearray(data)
    for _ in range(1 + int(rng.expovariate(0.5))):
        first = rng.randrange(len(out) + 1)
        last = min(len(out), first + 1 + int(rng.expovariate(0.05)))
        match rng.randrange(10):
            case 0:
                if first < len(out):
                    out[first] ^= 1 << rng.randrange(8)
            case 1:
                del out[first:last]
            case 2:
                out[first:first] = out[first:last] * min(1 + int(rng.expovariate(0.01)), _LONGEST_REPEAT)
            case 3:
                out[first:last] = rng.choice(_BYTES)
            case 4:
                out[first:last] = rng.choice(_NUMBERS)
            case 5:
                del out[first:]
            case 6:
                other = rng.choice(others)
                place = rng.randrange(len(other) + 1)
                out[first:last] = other[place : place + rng.randrange(1, 200)]
            case 7:
                out[first:last] = rng.randbytes(rng.randrange(1, 20))
            case _:
                out[first : rng.choice((first, last))] = rng.choice(tokens or _NUMBERS)
    return bytes(out)


def mutated_tree(tree: Any, rng: Random, odd: Sequence[Any] = ODD) -> Any:
    """A copy of dictionaries, lists and values with one to four changes."""
    tree = copy.deepcopy(tree)
    for _ in range(1 + int(rng.expovariate(1.0))):
        places = list(_places(tree))
        if not places:
            return rng.choice(odd)
        holder, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(("x", "format", 3, None, True, "x" * 500, *holder))] = holder[key]
            case 2 if isinstance(holder, list):
                holder[key:key] = [holder[key]] * rng.choice((1, 2, 1000))
            case 3:
                other, place = rng.choice(places)
                holder[key] = copy.deepcopy(tree if rng.random() < 0.1 else other[place])
            case 4 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = rng.choice((-holder[key], holder[key] + 1, holder[key] * 1000, float(holder[key]) + 0.5))
            case 5:
                holder[key] = _deep(rng)
            case _:
                holder[key] = copy.deepcopy(rng.choice(odd))
    return tree


def _deep(rng: Random) -> Any:
    value: Any = 0
    for _ in range(rng.choice((2, 10, 200))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(holder, key or index) of everything inside."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(found) < 5000:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            waiting.append(holder[key])
    return found


class _NotFinite(ast.NodeTransformer):
    """``nan`` and ``inf`` are how Python writes these numbers."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float(node.id)) if node.id in ("nan", "inf") else node


def write_plain(value: Any) -> bytes:
    """Plain Python values, also NaN and keys that are no text, as text."""
    return repr(value).encode("utf-8", "surrogatepass")


def parse_plain(data: bytes) -> Any:
    """What :func:`write_plain` wrote; raises ValueError for anything else."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        parsed = ast.parse(data.decode("utf-8", "surrogatepass"), mode="eval")
        return ast.literal_eval(_NotFinite().visit(parsed))
    except (SyntaxError, NameError, TypeError, AttributeError, MemoryError, RecursionError, ArithmeticError) as error:
        raise ValueError(f"no plain value: {error}") from error
    finally:
        sys.set_int_max_str_digits(before)
