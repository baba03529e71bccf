"""python -m benchmarks.points: what the points of a decomposition do to its rounding (docs/winograd.md).

For each choice of points the growth of the products' rounding by the formula, and the errors of the three faces in
float32 over PyTorch's own, both against float64: the mean square error's root, and the largest. 64 maps to 64,
channels_last. dx is computed by the transposed matrix, and as a forward pass with the rotated kernel.
"""

import argparse
import statistics
from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as T
from torch import Tensor

Matrix = list[list[Fraction]]

ZERO_ONE = [Fraction(t) for t in (0, 1, -1)]
POINTS = [Fraction(t, 8) for t in (0, 5, -5, 12, -12)]
CHOICES = [  # outputs, taps, the points beside infinity
    *[(m, r, [Fraction(t) for t in (0, 1, -1, 2, -2)]) for m, r in ((4, 3), (2, 5))],
    *[(m, r, [Fraction(t, 4) for t in (0, 3, -3, 6, -6)]) for m, r in ((4, 3), (2, 5))],
    *[(m, r, POINTS) for m, r in ((4, 3), (2, 5))],
    (2, 3, ZERO_ONE),
]
MAPS, SIDE = 64, 24  # in and out; of the output
PIECE = 32  # maps that are summed in one chain of additions, and then added to the others


def matrices(points: Sequence[Fraction], m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """A [m + r - 1, m + r - 1], B [m + r - 1, r] and C [m + r - 1, m] of these m + r - 2 points and infinity.

    Row f of C and B has the powers of the point t_f, divided in B by N_f, the product of all t_f - t_g; row f of A has
    the coefficients of the product of all t - t_g. In the last row, of infinity, no point is left out.
    """
    A, B, C = [], [], []
    for t in points:
        others = [s for s in points if s != t]
        scale = Fraction(1)
        for s in others:
            scale *= t - s
        A.append([*_with_roots(others), Fraction(0)])
        B.append([t**p / scale for p in range(r)])
        C.append([t**i for i in range(m)])
    A.append(_with_roots(points))
    B.append([Fraction(p == r - 1) for p in range(r)])
    C.append([Fraction(i == m - 1) for i in range(m)])
    return A, B, C


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the product of all t - root, that of t^0 first."""
    coefficients = [Fraction(1)]
    for root in roots:
        coefficients = [a - root * b for a, b in zip([Fraction(0), *coefficients], [*coefficients, 0], strict=True)]
    return coefficients


def growth(A: Matrix, B: Matrix, C: Matrix) -> float:
    """Of the rounding of products, on two axes: sum_f |A_f|^2 |B_f|^2 |C_f|^2 / (m r)."""
    squares = [[float(sum(a * a for a in row)) for row in of] for of in (A, B, C)]
    return sum(a * b * c for a, b, c in zip(*squares, strict=True)) / (len(B[0]) * len(C[0]))


def by_pytorch(x: Tensor, w: Tensor, delta: Tensor) -> dict[str, Tensor]:
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = T.conv2d(x, w)
    dx, dw = torch.autograd.grad(y, (x, w), delta)
    return {"y": y.detach(), "dx": dx, "dx, rotated": dx, "dw": dw}


def decomposed(x: Tensor, w: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> dict[str, Tensor]:
    """The faces, all in the dtype of the arguments; i j are tiles, f g products."""
    n, m, r = A.shape[0], C.shape[1], B.shape[1]
    extents = x.shape[2:]
    x_tiles, delta_tiles, w_tile = _on_both(A, _tiles(x, n, m)), _on_both(C, _tiles(delta, m, m)), _on_both(B, w)

    tiles = _on_both(A.T, _product("noijfg,ocfg->ncijfg", delta_tiles, w_tile, 1, 0))
    dx = T.fold(tiles.permute(0, 1, 4, 5, 2, 3).reshape(len(x), w.shape[1] * n * n, -1), extents, n, stride=m)
    dw = _on_both(B.T, _product("ncijfg,noijfg->ocfg", x_tiles, delta_tiles, 2, 2, piece=1))

    whole = [-(-extent // m) * m for extent in extents]  # of pixels of dx in tiles of m
    padding = [pad for H, I in zip(whole[::-1], delta.shape[:1:-1], strict=True) for pad in (r - 1, H - I)]
    rotated = _forward(T.pad(delta, padding), w.flip(2, 3).transpose(0, 1), A, B, C)[:, :, : extents[0], : extents[1]]
    return {"y": _forward(x, w, A, B, C), "dx": dx, "dx, rotated": rotated, "dw": dw}


def _forward(x: Tensor, w: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    n, m = A.shape[0], C.shape[1]
    tiles = _on_both(C.T, _product("ncijfg,ocfg->noijfg", _on_both(A, _tiles(x, n, m)), _on_both(B, w), 1, 1))
    return tiles.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _tiles(x: Tensor, n: int, m: int) -> Tensor:
    """Tiles of n x n pixels, m pixels apart: [N, C, tiles, tiles, n, n]."""
    return x.unfold(2, n, m).unfold(3, n, m)


def _on_both(M: Tensor, t: Tensor) -> Tensor:
    """M applied to the columns and to the rows."""
    return M @ t @ M.T


def _product(sums: str, a: Tensor, b: Tensor, axis: int, other: int, piece: int = PIECE) -> Tensor:
    """The einsum over these axes of a and b, among others, piece by piece."""
    pieces = zip(a.split(piece, axis), b.split(piece, other), strict=True)
    total = torch.einsum(sums, *next(pieces))
    for some in pieces:
        total += torch.einsum(sums, *some)
    return total


def errors(m: int, r: int, points: Sequence[Fraction], N: int, seed: int) -> dict[str, tuple[float, float]]:
    """Of each face, over PyTorch's: the root of the mean square error, and the largest."""
    torch.manual_seed(seed)
    shapes = (N, MAPS, SIDE + r - 1, SIDE + r - 1), (MAPS, MAPS, r, r), (N, MAPS, SIDE, SIDE)
    inputs = [torch.randn(shape).contiguous(memory_format=torch.channels_last) for shape in shapes]
    exact = by_pytorch(*(t.double() for t in inputs))
    mine = decomposed(*inputs, *(torch.tensor([[float(a) for a in row] for row in M]) for M in matrices(points, m, r)))
    both = {face: [found[face] - exact[face] for found in (mine, by_pytorch(*inputs))] for face in mine}
    return {
        face: ((of_mine.norm() / theirs.norm()).item(), (of_mine.abs().max() / theirs.abs().max()).item())
        for face, (of_mine, theirs) in both.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.points", description=__doc__)
    parser.add_argument("--images", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="medians of so many draws (default: 5)")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, float32, {options.images} images: errors over PyTorch's own")
    for m, r, points in CHOICES:
        of_draws = [errors(m, r, points, options.images, seed) for seed in range(options.seeds)]
        shown = ", ".join(f"+-{t}" if t else "0" for t in points if t >= 0)
        print(f"{m} x {m} of {r} x {r}, points {shown}: growth {growth(*matrices(points, m, r)):.2f}")
        for face in of_draws[0]:
            mean, largest = (statistics.median(draw[face][i] for draw in of_draws) for i in range(2))
            print(f"    {face:12}root of the mean square {mean:5.2f}   largest {largest:5.2f}")


if __name__ == "__main__":
    main()
