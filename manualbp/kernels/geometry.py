"""Where a window stands: the relation between input and output positions, checked once, where it is made.

Letters: (h, k) input position, (i, j) output position, (p, q) kernel offset. On each axis

    h = stride i + dilation p - padding
"""

from collections.abc import Sequence
from dataclasses import dataclass

Size = int | Sequence[int]


@dataclass(frozen=True)
class Geometry:
    """Extents and steps of a window that slides over an image; per axis, rows first.

    x_size: image (H, W), unpadded. w_size: kernel (P, Q). groups: the maps of x and y fall into that many groups
    that do not see each other. ceil_mode: windows that leave the image at its end count too (pooling).
    A frozen value, not a tuple: torch.func takes a tuple among a Function's arguments apart.
    """

    x_size: tuple[int, int]
    w_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1
    ceil_mode: bool = False

    @property
    def reach(self) -> tuple[int, int]:
        """Pixels from the first to the last tap of the kernel, both counted: dilation (P - 1) + 1."""
        (P, Q), (d, e) = self.w_size, self.dilation
        return d * (P - 1) + 1, e * (Q - 1) + 1

    @property
    def y_size(self) -> tuple[int, int]:
        """Output extents (I, J)."""
        return self._extent(0), self._extent(1)

    def _extent(self, axis: int) -> int:
        s, pad, H = self.stride[axis], self.padding[axis], self.x_size[axis]
        room = H + 2 * pad - self.reach[axis]
        extent = (room + (s - 1 if self.ceil_mode else 0)) // s + 1
        if self.ceil_mode and (extent - 1) * s >= H + pad:
            extent -= 1  # a window that would start beyond the image and its left padding does not count
        return extent


def pair(op: str, name: str, value: Size, least: int) -> tuple[int, int]:
    """`value` for both axes: an int, or one or two ints; each at least `least`."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if isinstance(value, str) or len(values) not in (1, 2):
        raise ValueError(f"{op}: {name} = {value!r}; it must be one int or two")
    first, second = values * 2 if len(values) == 1 else values
    if first < least or second < least:
        raise ValueError(f"{op}: {name} = {value!r}; it must be at least {least}")
    return first, second


def convolution(
    op: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: Size,
    padding: Size,
    dilation: Size,
    groups: int,
) -> Geometry:
    """The geometry of a correlation of images [N, C, H, W] with kernels [O, C / groups, P, Q]."""
    if len(w_shape) != 4 or 0 in w_shape:
        raise ValueError(
            f"{op}: the kernel has shape {list(w_shape)}; it must be [O, C / groups, P, Q], none of them 0"
        )
    if groups < 1 or w_shape[0] % groups:
        raise ValueError(f"{op}: groups = {groups} must be at least 1 and divide the {w_shape[0]} output maps")
    C, H, W = x_shape[-3:]
    if w_shape[1] * groups != C:
        raise ValueError(
            f"{op}: the image has {C} maps and the kernel of shape {list(w_shape)} with groups = {groups} sees "
            f"{w_shape[1] * groups}; they must be as many"
        )
    P, Q = w_shape[2:]
    geometry = Geometry(
        (H, W),
        (P, Q),
        pair(op, "stride", stride, 1),
        pair(op, "padding", padding, 0),
        pair(op, "dilation", dilation, 1),
        groups,
    )
    for axis in (0, 1):
        if geometry.reach[axis] > geometry.x_size[axis] + 2 * geometry.padding[axis]:
            raise ValueError(
                f"{op}: the kernel reaches over {list(geometry.reach)} pixels and the image has {[H, W]}, padded by "
                f"{list(geometry.padding)} on each side; the kernel must fit into the padded image"
            )
    return geometry


def pooling(
    op: str,
    x_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
) -> Geometry:
    """The geometry of a pooling of images of shape [..., C, H, W]; no stride means the kernel's own extents."""
    if len(x_shape) not in (3, 4) or 0 in x_shape[-3:]:
        raise ValueError(f"{op}: input has shape {list(x_shape)}; it must be [N, C, H, W] or [C, H, W], C, H, W not 0")
    no_stride = stride is None or (not isinstance(stride, int) and len(stride) == 0)
    H, W = x_shape[-2:]
    geometry = Geometry(
        (H, W),
        pair(op, "kernel_size", kernel_size, 1),
        pair(op, "stride", kernel_size if no_stride else stride, 1),  # pyright: ignore[reportArgumentType]
        pair(op, "padding", padding, 0),
        pair(op, "dilation", dilation, 1),
        ceil_mode=bool(ceil_mode),
    )
    for axis in (0, 1):
        if 2 * geometry.padding[axis] > geometry.reach[axis]:
            raise ValueError(
                f"{op}: padding = {list(geometry.padding)} is more than half of the window, which reaches over "
                f"{list(geometry.reach)} pixels; some windows would see padding only"
            )
    if min(geometry.y_size) < 1:
        raise ValueError(
            f"{op}: the window reaches over {list(geometry.reach)} pixels and the image has {[H, W]}, padded by "
            f"{list(geometry.padding)} on each side; the output would have extents {list(geometry.y_size)}"
        )
    return geometry
