"""The decomposition of docs/winograd.md, exactly: as polynomials in the numbers of x, w and delta, over the rationals.

    F(x, w, delta) = sum_ip delta_i x_{i+p} w_p = sum_f (A x)_f (B w)_f (C delta)_f

Letters: i an output, p a tap, k a pixel, f a product; on two axes i j, p q, h k and f g.
"""

import math
import re
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sympy import QQ, ring

from benchmarks.points import POINTS, ZERO_ONE, Matrix, growth, matrices
from manualbp.kernels.cpu import calls

PAGE = Path(__file__).parents[2] / "docs" / "winograd.md"
TILES = [(4, 3, POINTS), (2, 5, POINTS), (2, 3, ZERO_ONE)]  # outputs, taps, the points beside infinity
TILE = pytest.mark.parametrize(("m", "r", "points"), TILES, ids=[f"{m} of {r}" for m, r, _ in TILES])


def letters(m: int, r: int, axes: int = 1) -> list[dict[tuple[int, ...], Any]]:
    """x, w and delta: symbols by their places."""
    extents = m + r - 1, r, m
    names = [f"{letter}:{extent**axes}" for letter, extent in zip("xwd", extents, strict=True)]
    _, *symbols = ring(",".join(names), QQ)
    places = [list(product(range(extent), repeat=axes)) for extent in extents]
    of_each = iter(symbols)
    return [{place: next(of_each) for place in some} for some in places]


def form(x: Any, w: Any, delta: Any) -> Any:
    """F, term by term."""
    return sum(delta[i] * x[tuple(a + b for a, b in zip(i, p, strict=True))] * w[p] for i in delta for p in w)


def brackets(M: Matrix, t: dict[tuple[int, ...], Any]) -> dict[tuple[int, ...], Any]:
    """(M t)_f, on two axes (M t M^T)_fg."""
    axes = len(next(iter(t)))
    return {
        f: sum(math.prod(M[a][b] for a, b in zip(f, place, strict=True)) * symbol for place, symbol in t.items())
        for f in product(range(len(M)), repeat=axes)
    }


def decomposed(of: tuple[Matrix, ...], inputs: list[Any]) -> Any:
    """The sum of products."""
    a, b, c = (brackets(M, t) for M, t in zip(of, inputs, strict=True))
    return sum(a[f] * b[f] * c[f] for f in a)


def face(of: tuple[Matrix, ...], inputs: list[Any], by: int) -> list[Any]:
    """M^T [the product of the other two brackets], M being the matrix of the argument `by`."""
    one, other = (brackets(of[k], inputs[k]) for k in range(3) if k != by)
    return [
        sum(math.prod(of[by][a][b] for a, b in zip(f, place, strict=True)) * one[f] * other[f] for f in one)
        for place in inputs[by]
    ]


@TILE
@pytest.mark.parametrize("axes", [1, 2])
def test_the_products_sum_to_the_form(m: int, r: int, points: list[Fraction], axes: int) -> None:
    inputs = letters(m, r, axes)
    F = form(*inputs)
    assert len(F) == (m * r) ** axes
    assert decomposed(matrices(points, m, r), inputs) == F


@TILE
@pytest.mark.parametrize("by", range(3), ids=["dx", "dw", "y"])
def test_each_face_is_a_derivative_and_the_transposed_matrix(m: int, r: int, points: list[Fraction], by: int) -> None:
    of, inputs = matrices(points, m, r), letters(m, r)
    F, sum_of_products = form(*inputs), decomposed(of, inputs)
    faces = face(of, inputs, by)
    assert faces == [sum_of_products.diff(symbol) for symbol in inputs[by].values()]
    assert faces == [F.diff(symbol) for symbol in inputs[by].values()]


@pytest.mark.parametrize("by", range(3), ids=["dx", "dw", "y"])
def test_the_faces_on_two_axes(by: int) -> None:
    inputs = letters(2, 3, axes=2)
    F = form(*inputs)
    assert face(matrices(ZERO_ONE, 2, 3), inputs, by) == [F.diff(symbol) for symbol in inputs[by].values()]


@TILE
def test_a_wrong_sign_of_any_number_is_found(m: int, r: int, points: list[Fraction]) -> None:
    of, inputs = matrices(points, m, r), letters(m, r)
    F = form(*inputs)
    for M in of:
        for row in M:
            for k in range(len(row)):
                row[k] = -row[k]
                assert (decomposed(of, inputs) == F) == (row[k] == 0)
                row[k] = -row[k]


def test_the_pages_matrices() -> None:
    """A, B and C as the page prints them, and its worth of the points."""
    text = PAGE.read_text()
    named = re.findall(r"^([ABC])\n((?: *[-/ 0-9]+\n)+)", text, re.MULTILINE)
    printed = [(name, [[Fraction(a) for a in row.split()] for row in rows.splitlines()]) for name, rows in named]
    A, B, C = matrices(POINTS, 4, 3)
    A5, B5, C2 = matrices(POINTS, 2, 5)
    assert A5 == A
    assert printed == [("A", A), ("B", B), ("C", C), ("B", B5), ("C", C2)]
    for m, r, points in TILES:
        assert f"{growth(*matrices(points, m, r)):.2f}" in text


@TILE
def test_the_compiled_kernels_matrices(m: int, r: int, points: Any) -> None:
    """A and C exactly, B rounded to float32."""
    if not calls.built():
        pytest.skip("there are no compiled kernels here")
    found = torch.empty(1)
    for which, M in enumerate(matrices(points, m, r)):
        for f, row in enumerate(M):
            for k, exact in enumerate(row):
                calls.call("triple_entry", which, m + r - 1, len(row), f, k, found)
                distance = abs(Fraction(found.item()) - exact)
                last_place = Fraction(2) ** (math.frexp(exact)[1] - 24)
                assert distance <= (last_place if which == 1 else 0), f"{'ABC'[which]} {f} {k}"
