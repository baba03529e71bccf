"""Backward passes by hand, wrong and right: what a checker has to tell apart.

The wrong ones are modelled on mistakes of published code, in one rule or several, each with exactly one.
"""

from . import (
    activation,
    algebra,
    awkward,
    convolution,
    convolution_mistakes,
    dropout,
    losses,
    normalisation,
    pooling,
    reduction,
    structure,
)
from .sample import Sample

FAMILIES = (
    convolution,
    convolution_mistakes,
    pooling,
    activation,
    normalisation,
    losses,
    algebra,
    dropout,
    reduction,
    structure,
    awkward,
)
SAMPLES: list[Sample] = [sample for family in FAMILIES for sample in family.SAMPLES]

__all__ = ["SAMPLES", "Sample"]
