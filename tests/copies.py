"""A model copied in the ways that people copy one."""

import copy
import io
import pickle

import torch
from torch import nn


def through_deepcopy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def through_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [through_deepcopy, through_pickle, through_torch_save]
