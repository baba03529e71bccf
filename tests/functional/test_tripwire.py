"""The tripwire: a rule made wrong on purpose changes the gradients on every way to them, so no way goes around it."""

import warnings
from pathlib import Path

import pytest
import torch

from manualbp.functional.rule import RECORDED
from tests.checks import EXACT, distance
from tests.functional import tripwire
from tests.functional.tripwire import TIMES, WAYS, WRONG, Gradients, by_backward, distributed, images, loss, network

every_way = pytest.mark.parametrize("way", WAYS)
every_wrong = pytest.mark.parametrize("wrong", WRONG)
BFLOAT16 = torch.finfo(torch.bfloat16).eps  # 0.0078


def pytorchs(way: str = "eager") -> Gradients:
    """The gradients of PyTorch's own layers; for the way through autocast, theirs under autocast."""
    return by_backward(tripwire.under_autocast if way == "autocast" else tripwire.plainly, torch.nn)


def alike(a: Gradients, b: Gradients, wrong: str | None = None) -> bool:
    """Every parameter's two gradients are equal, but for the times that a wrong rule puts there: powers of two."""
    assert a.keys() == b.keys()
    tolerance = EXACT if all(g.dtype == torch.float64 for g in a.values()) else BFLOAT16
    return all(distance(a[name], b[name] * (TIMES[wrong][name] if wrong else 1)) <= tolerance for name in b)


@every_way
def test_every_way_gives_pytorchs_gradients(way: str) -> None:
    assert alike(WAYS[way](), pytorchs(way))


@every_way
@every_wrong
def test_a_wrong_rule_shows_on_every_way(way: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*WRONG[wrong])
    gradients = WAYS[way]()
    assert not alike(gradients, pytorchs(way))
    assert alike(gradients, pytorchs(way), wrong)


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    assert alike(distributed(None, tmp_path), pytorchs())


@every_wrong
def test_a_wrong_rule_shows_in_two_processes(wrong: str, tmp_path: Path) -> None:
    assert alike(distributed(wrong, tmp_path), pytorchs(), wrong)


def test_export_says_that_it_drops_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one way around: the exported program has PyTorch's gradient, wrong rule or not."""
    monkeypatch.setattr(*WRONG["slope"])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        exported = torch.export.export(network(), (images(),), strict=False).module()
    assert [str(w.message) for w in seen].count(RECORDED) == 1
    loss(exported(images())).backward()
    assert alike({name: p.grad for name, p in exported.named_parameters() if p.grad is not None}, pytorchs())


def test_strict_export_has_the_gradient_of_pytorch() -> None:
    exported = torch.export.export(network(), (images(),), strict=True).module()
    loss(exported(images())).backward()
    assert alike({name: p.grad for name, p in exported.named_parameters() if p.grad is not None}, pytorchs())
