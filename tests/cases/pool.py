"""Pooling and padding."""

from tests.cases.make import Case, distinct, fixed, normal, together

MAX_POOL2D = [
    Case("max_pool2d", name, distinct(*x), kwargs)
    for name, x, kwargs in [
        ("tiles", (2, 2, 6, 4), {"kernel_size": 2}),
        ("tiles, pixels over", (2, 2, 7, 5), {"kernel_size": (2, 3)}),
        ("overlap", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2}),
        ("overlap, stride 1", (1, 2, 5, 4), {"kernel_size": (2, 3), "stride": 1}),
        ("stride > kernel", (2, 2, 8, 7), {"kernel_size": 2, "stride": 3}),
        ("padding", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("dilation", (2, 2, 8, 9), {"kernel_size": (3, 2), "stride": (2, 1), "dilation": (2, 3)}),
        ("ceil_mode", (2, 2, 7, 6), {"kernel_size": 2, "ceil_mode": True}),
        ("ceil_mode, padding", (2, 2, 6, 5), {"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True}),
        ("window of 257 pixels from end to end", (1, 1, 1, 259), {"kernel_size": (1, 3), "stride": 1, "dilation": 128}),
        ("window = image", (2, 2, 4, 3), {"kernel_size": (4, 3)}),
        ("1x1", (2, 2, 3, 4), {"kernel_size": 1}),
        ("return_indices", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True}),
        ("unbatched", (2, 7, 6), {"kernel_size": 2, "return_indices": True}),
        ("empty stride", (2, 2, 6, 6), {"kernel_size": 3, "stride": []}),
    ]
]

AVG_POOL2D = [
    Case("avg_pool2d", name, normal(*x), kwargs)
    for name, x, kwargs in [
        ("tiles", (2, 2, 6, 4), {"kernel_size": 2}),
        ("tiles, pixels over", (2, 2, 7, 5), {"kernel_size": (2, 3)}),
        ("overlap", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2}),
        ("stride > kernel", (2, 2, 8, 7), {"kernel_size": 2, "stride": 3}),
        ("padding", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("padding, not counted", (2, 2, 7, 6), {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
        ("ceil_mode", (2, 2, 7, 6), {"kernel_size": 2, "ceil_mode": True}),
        ("ceil_mode, padding", (2, 2, 6, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        (
            "ceil_mode, padding not counted",
            (2, 2, 6, 5),
            {"kernel_size": (3, 2), "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
        ),
        ("divisor_override", (2, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5}),
        ("divisor_override < 0", (1, 2, 4, 4), {"kernel_size": 2, "divisor_override": -3}),
        ("window = image", (2, 2, 4, 3), {"kernel_size": (4, 3)}),
        ("unbatched", (2, 7, 6), {"kernel_size": 2}),
    ]
]

PAD = [
    Case("pad", f"{mode} {sides}", together(normal(*x), fixed(sides)), {"mode": mode, **kwargs})
    for mode, x, sides, kwargs in [
        ("constant", (2, 3, 4, 5), (1, 2, 3, 0), {}),
        ("constant", (2, 3, 4, 5), (1, -2, -1, 3), {"value": 2.5}),
        ("constant", (3, 4), (0, 1), {}),
        ("reflect", (2, 3, 4, 5), (4, 3, 2, 0), {}),
        ("reflect", (3, 5), (2, 4), {}),
        ("replicate", (2, 3, 4, 5), (1, 7, 3, 2), {}),
        ("replicate", (2, 3, 4, 5), (1, 1, 0, 2, 2, 1), {}),
        ("circular", (2, 3, 4, 5), (5, 3, 4, 1), {}),
        ("circular", (3, 4, 5), (1, 2, 0, 3), {}),
        ("reflect", (2, 3, 4, 5), (2, -1, 0, -2), {}),
        ("replicate", (2, 3, 4, 5), (-2, 3, 1, 1), {}),
        ("circular", (2, 3, 4, 5), (-1, -1, -1, 3), {}),
    ]
]
