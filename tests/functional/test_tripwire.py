"""The tripwire: a rule made wrong on purpose changes the gradients on every way to them, so no way goes around it."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from manualbp.functional.rule import EXPORTED
from tests.checks import EXACT, distance
from tests.functional.tripwire import WAYS, WRONG, Gradients, by_backward, distributed, images, loss, network

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
every_wrong = pytest.mark.parametrize("wrong", WRONG)


def plain() -> Gradients:
    return by_backward(lambda model, x: model(x))


def alike(a: Gradients, b: Gradients) -> bool:
    """Every parameter's two gradients are equal, to the precision of the lower one (bfloat16 inside of float32)."""
    assert a.keys() == b.keys()
    tolerance = EXACT if all(g.dtype == torch.float64 for g in a.values()) else 0.2
    return all(distance(a[name], b[name]) <= tolerance for name in a)


@every_way
def test_every_way_gives_the_same_gradients(way: Callable[[], Gradients]) -> None:
    assert alike(way(), plain())


@every_way
@every_wrong
def test_a_wrong_rule_shows_on_every_way(
    way: Callable[[], Gradients], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = plain()
    monkeypatch.setattr(*WRONG[wrong])
    gradients = way()
    assert distance(gradients["0.weight"], right["0.weight"]) > 0.5
    assert alike(gradients, plain())


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    assert alike(distributed(None, tmp_path), plain())


@every_wrong
def test_a_wrong_rule_shows_in_two_processes(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = distributed(wrong, tmp_path)
    assert distance(gradients["0.weight"], plain()["0.weight"]) > 0.5
    monkeypatch.setattr(*WRONG[wrong])
    assert alike(gradients, plain())


def test_export_says_that_it_drops_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one way around: the exported program has PyTorch's gradient, wrong rule or not."""
    right = plain()
    monkeypatch.setattr(*WRONG["slope"])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        exported = torch.export.export(network(), (images(),), strict=False).module()
    assert [str(w.message) for w in seen].count(EXPORTED) == 1
    loss(exported(images())).backward()
    assert alike({name: p.grad for name, p in exported.named_parameters() if p.grad is not None}, right)


def test_strict_export_has_no_gradient() -> None:
    """Here PyTorch itself stops: nothing that could be wrong in silence."""
    exported = torch.export.export(network(), (images(),), strict=True).module()
    assert not exported(images()).requires_grad
