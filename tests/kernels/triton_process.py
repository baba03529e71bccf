"""Compile the Triton kernels for two compute capabilities, down to machine code, where there is no card."""

from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from manualbp.kernels.cuda import calls, conv, norm, pool
from manualbp.kernels.geometry import convolution, pooling


class Driver:
    """Cards that are not there, by their capability; `card` is the one that is asked."""

    card = 80

    def get_current_device(self) -> int:
        return self.card

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.card, 32)


cards, compiled = Driver(), set()


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    if kernel.warmup(*args, grid=grid, **constants).asm["cubin"]:
        compiled.add(f"{kernel.__name__}:{cards.card}")


def launch_all(x: torch.Tensor, phi: str, dilation: int | tuple[int, int] = 1) -> None:
    g = pooling("test", x.shape, 3, 2, 1, dilation, False)
    y, byte = pool.max_pool(x, g, phi)
    pool.put(y, byte, g, y, phi)
    b = torch.ones(x.shape[1])
    norm.affine(x, b, b, phi)
    norm.backward(x, x, b, b, b, b, b, b, True, phi)
    conv.kernel_gradient(x, x, convolution("test", x.shape, (16, 16, 3, 3), 1, 1, 1, 1))


pool.launch = norm.launch = conv.launch = launch  # pyright: ignore[reportPrivateImportUsage]
driver.set_active(cards)  # pyright: ignore[reportArgumentType]
x = torch.ones(2, 16, 6, 7)
launch_all(x, "tanh")
cards.card = 90
launch_all(x.bfloat16().to(memory_format=torch.channels_last), "relu")
calls.FAR = 0
torch.backends.cuda.matmul.fp32_precision = "tf32"  # pyright: ignore[reportAttributeAccessIssue]
launch_all(x, "sigmoid", (1, 2))
launch_all(x, "none", (2, 1))
print(*sorted(compiled))
