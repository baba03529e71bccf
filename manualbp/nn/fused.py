"""stub"""

from manualbp import functional as F

PHI = {"relu": F.relu, "sigmoid": F.sigmoid, "tanh": F.tanh}


def activated_pool(pool, x, phi):
    return PHI[phi](F.max_pool2d(x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode))


def folds(conv, pool):
    return False


def folded(conv, pool, x):
    return x
