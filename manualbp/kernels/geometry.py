"""Where a window stands: the relation between input and output positions, checked once, where it is made.

Letters: (h, k) input position, (i, j) output position, (p, q) kernel offset. On each axis

    h = stride i + dilation p - padding

An image with one axis has h, i and p only; with three l, m and r, of the extents D, M and R, stand before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from manualbp.kernels.layout import maps_last

Size = int | Sequence[int]

# By the number of axes: their letters in an image and in a kernel, and what a setting may hold.
IMAGE = {1: "H", 2: "H, W", 3: "D, H, W"}
KERNEL = {1: "P", 2: "P, Q", 3: "R, P, Q"}
COUNT = {1: "one int", 2: "one int or two", 3: "one int or three"}


@dataclass(frozen=True)
class Places:
    """The image that places point into: int64 positions h W + k, or bytes that tell apart the pixels of a window.

    x_size: its extents (H, W). apart: no two places of one map are equal, as no pixel is in two windows.
    windows: their geometry, for bytes.
    """

    x_size: tuple[int, ...]
    apart: bool
    windows: "Geometry | None" = None


@dataclass(frozen=True)
class Geometry:
    """Extents and steps of a window that slides over an image of one, two or three axes; per axis, rows before columns.

    x_size: image (H, W), unpadded. w_size: kernel (P, Q). groups: the maps of x and y fall into that many groups
    that do not see each other. ceil_mode: windows that leave the image at its end count too (pooling). last: the image
    is in channels_last, so its gradient is, whatever order delta comes in (layout.laid_out).
    A frozen value, not a tuple: torch.func takes a tuple among a Function's arguments apart.
    """

    x_size: tuple[int, ...]
    w_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    ceil_mode: bool = False
    last: bool = False

    def of(self, *images: Tensor) -> "Geometry":
        """The same for images that are here, not just their extents: in channels_last where one of them is."""
        return replace(self, last=True) if any(map(maps_last, images)) else self

    @property
    def reach(self) -> tuple[int, ...]:
        """Pixels from the first to the last tap of the kernel, both counted: dilation (P - 1) + 1."""
        return tuple([d * (P - 1) + 1 for P, d in zip(self.w_size, self.dilation, strict=True)])

    @property
    def y_size(self) -> tuple[int, ...]:
        """Output extents (I, J)."""
        return tuple([self._extent(axis) for axis in range(len(self.x_size))])

    @property
    def places(self) -> Places:
        """Where the windows' positions point."""
        apart = all(s >= reach for s, reach in zip(self.stride, self.reach, strict=True))
        return Places(self.x_size, apart, self)

    def misses(self, axis: int) -> bool:
        """Whether the taps of a window of a pooling, padded by half of the kernel at most, all fall beside the image.

        Only one that begins before the image can miss it: its first tap behind the edge is h mod d, h < 0 its first.
        """
        s, pad, d, H = self.stride[axis], self.padding[axis], self.dilation[axis], self.x_size[axis]
        return d > H and any(h % d >= H for h in range(-pad, min(0, self.y_size[axis] * s - pad), s))

    def _extent(self, axis: int) -> int:
        s, pad, H = self.stride[axis], self.padding[axis], self.x_size[axis]
        room = H + 2 * pad - self.reach[axis]
        extent = (room + (s - 1 if self.ceil_mode else 0)) // s + 1
        if self.ceil_mode and (extent - 1) * s >= H + pad:
            extent -= 1  # a window that would start beyond the image and its left padding does not count
        return extent


def per_axis(op: str, name: str, value: Size, axes: int, least: int) -> tuple[int, ...]:
    """`value` for every axis: an int, or one int or `axes` of them; each at least `least`."""
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if isinstance(value, str) or len(values) not in (1, axes):
        raise ValueError(f"{op}: {name} = {value!r}; it must be {COUNT[axes]}")
    if min(values) < least:
        raise ValueError(f"{op}: {name} = {value!r}; it must be at least {least}")
    return values if len(values) == axes else values * axes


def _refuse_no_image(op: str, shape: Sequence[int], axes: int) -> None:
    """Refuse what is neither a batch of images nor one."""
    if len(shape) not in (axes + 1, axes + 2):
        raise ValueError(f"{op}: input has shape {list(shape)}; it must be [N, C, {IMAGE[axes]}] or [C, {IMAGE[axes]}]")


def convolution(
    op: str,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
    bias: Tensor | None = None,
    axes: int = 2,
    least: int = 1,
) -> Geometry:
    """The geometry of a correlation of images [N, C, H, W] or [C, H, W] with kernels [O, C / groups, P, Q], bias [O].

    C is at `least` 1 or 0.

    padding may be "valid" (none) or "same" (the extents stay). Where that takes an odd number of pixels, x_size is that
    of the image with the odd one behind it.
    """
    _refuse_no_image(op, x_shape, axes)
    if len(w_shape) != axes + 2 or 0 in (w_shape[0], *w_shape[2:]) or w_shape[1] < least:
        wanted = f"[O, C / groups, {KERNEL[axes]}], none of them 0{'' if least else ' but C'}"
        raise ValueError(f"{op}: the kernel has shape {list(w_shape)}; it must be {wanted}")
    if bias is not None and tuple(bias.shape) != tuple(w_shape[:1]):
        raise ValueError(f"{op}: bias has shape {list(bias.shape)} and weight {list(w_shape)}; bias must be [O]")
    if groups < 1 or w_shape[0] % groups:
        raise ValueError(f"{op}: groups = {groups} must be at least 1 and divide the {w_shape[0]} output maps")
    if w_shape[1] * groups != x_shape[-1 - axes]:
        raise ValueError(
            f"{op}: the image has {x_shape[-1 - axes]} maps and the kernel of shape {list(w_shape)} with groups = "
            f"{groups} sees {w_shape[1] * groups}; they must be as many"
        )
    if isinstance(padding, str) and padding not in ("valid", "same"):
        raise ValueError(f"{op}: padding = {padding!r}; it must be {COUNT[axes]}, 'valid' or 'same'")
    g = Geometry(
        tuple(x_shape[-axes:]),
        tuple(w_shape[2:]),
        per_axis(op, "stride", stride, axes, 1),
        per_axis(op, "padding", 0 if isinstance(padding, str) else padding, axes, 0),
        per_axis(op, "dilation", dilation, axes, 1),
        groups,
    )
    if padding == "same":
        if max(g.stride) > 1:
            raise ValueError(f"{op}: padding = 'same' with stride = {stride!r}; the stride must be 1")
        x_size = tuple([H + (reach - 1) % 2 for H, reach in zip(g.x_size, g.reach, strict=True)])
        g = replace(g, x_size=x_size, padding=tuple([(reach - 1) // 2 for reach in g.reach]))
    if 0 in x_shape[-axes:] and 0 not in x_shape[: len(x_shape) - axes]:
        raise ValueError(f"{op}: input has shape {list(x_shape)}; {IMAGE[axes]} must not be 0")
    for H, reach, pad in zip(g.x_size, g.reach, g.padding, strict=True):
        if reach > H + 2 * pad:
            raise ValueError(
                f"{op}: the kernel reaches over {list(g.reach)} pixels and the image has {list(g.x_size)}, "
                f"padded by {list(g.padding)} on each side; the kernel must fit into the padded image"
            )
    return g


def transposed(
    op: str,
    delta_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: Size,
    padding: Size,
    output_padding: Size,
    groups: int,
    dilation: Size,
    bias: Tensor | None,
    axes: int,
) -> Geometry:
    """The geometry of the correlation of which delta [N, O, I, J] or [O, I, J] is the output, its bias [C].

    The kernels are [O, C / groups, P, Q], the images' extents (I - 1) stride + reach + output_padding - 2 padding.
    """
    _refuse_no_image(op, delta_shape, axes)
    if len(w_shape) != axes + 2 or 0 in w_shape:
        raise ValueError(
            f"{op}: the kernel has shape {list(w_shape)}; it must be [C_in, C_out / groups, {KERNEL[axes]}], none of "
            "them 0"
        )
    if groups < 1 or w_shape[0] % groups:
        raise ValueError(f"{op}: groups = {groups} must be at least 1 and divide the {w_shape[0]} input maps")
    y_size = tuple(delta_shape[-axes:])
    nothing = len(delta_shape) == axes + 2 and delta_shape[0] == 0  # of no images PyTorch asks less
    if w_shape[0] != delta_shape[-1 - axes] or (0 in y_size and not nothing):
        raise ValueError(
            f"{op}: input has shape {list(delta_shape)} and the kernel {list(w_shape)}; input must have "
            f"{w_shape[0]} maps of {IMAGE[axes]} pixels, not 0"
        )
    g = Geometry(
        y_size,  # in the place of x_size, which is reckoned from the reach of this kernel
        tuple(w_shape[2:]),
        per_axis(op, "stride", stride, axes, 1),
        per_axis(op, "padding", padding, axes, 0),
        per_axis(op, "dilation", dilation, axes, 1),
        groups,
    )
    behind = per_axis(op, "output_padding", output_padding, axes, 0)
    if not nothing and any(more >= max(s, d) for more, s, d in zip(behind, g.stride, g.dilation, strict=True)):
        raise ValueError(
            f"{op}: output_padding = {output_padding!r} with stride = {stride!r} and dilation = {dilation!r}; it must "
            "be smaller than one of them"
        )
    rows = zip(y_size, g.stride, g.reach, behind, g.padding, strict=True)
    x_size = tuple([(I - 1) * s + reach + more - 2 * pad for I, s, reach, more, pad in rows])
    if min(x_size) < 0:
        raise ValueError(
            f"{op}: padding = {padding!r} for an input of {list(y_size)} under a kernel that reaches over "
            f"{list(g.reach)} pixels; the output would have extents {list(x_size)}"
        )
    C = w_shape[1] * groups
    if bias is not None and tuple(bias.shape) != (C,):
        raise ValueError(
            f"{op}: bias has shape {list(bias.shape)} and weight {list(w_shape)} with groups = {groups}; bias must be "
            f"[{C}]"
        )
    return replace(g, x_size=x_size)


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
        per_axis(op, "kernel_size", kernel_size, 2, 1),
        per_axis(op, "stride", kernel_size if no_stride else stride, 2, 1),  # pyright: ignore[reportArgumentType]
        per_axis(op, "padding", padding, 2, 0),
        per_axis(op, "dilation", dilation, 2, 1),
        ceil_mode=bool(ceil_mode),
    )
    for axis in (0, 1):
        if 2 * geometry.padding[axis] > geometry.w_size[axis]:
            raise ValueError(
                f"{op}: padding = {list(geometry.padding)} is more than half of kernel_size = {list(geometry.w_size)}; "
                "it must be half of it at most"
            )
    if min(geometry.y_size) < 1:
        raise ValueError(
            f"{op}: the window reaches over {list(geometry.reach)} pixels and the image has {[H, W]}, padded by "
            f"{list(geometry.padding)} on each side; the output would have extents {list(geometry.y_size)}"
        )
    if any(geometry.misses(axis) for axis in (0, 1)):
        raise ValueError(
            f"{op}: kernel_size = {list(geometry.w_size)}, dilation = {list(geometry.dilation)} and padding = "
            f"{list(geometry.padding)} for an image of {[H, W]} pixels; a window would see padding only"
        )
    return geometry
