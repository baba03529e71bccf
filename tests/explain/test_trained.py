"""The page of a trained network: its numbers against plain PyTorch's, its pictures, its command, and in a browser."""

import base64
import copy
import html
import io
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import manualbp
from manualbp.__main__ import main
from manualbp.explain import pictures, trained_page
from manualbp.explain.pages import WEB
from manualbp.explain.pictures import LARGEST, LEVELS, NEGATIVE, NO_NUMBER, POSITIVE, sheet
from manualbp.explain.subjects import Subject, of_checkpoint, of_model
from manualbp.explain.trained import INPUTS, MOST, kernels_of, largest, look, maps_of
from manualbp.training import torch_layers
from manualbp.training.cli import main as train
from manualbp.training.networks import NETWORKS
from tests.explain.test_browser import AXE, opened

RESNET18 = "torchvision.models:resnet18"
MARKUP = "<img src=x onerror=alert(1)>&"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one epoch on digits of two networks."""
    parent = tmp_path_factory.mktemp("runs")
    for network in ("lecture004", "mlp"):
        assert train(["--epochs", "1", "--network", network, "--output-dir", str(parent)]) == 0
    return parent


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs/, images and other files, and a module `strange` with networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "runs").symlink_to(runs)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (8, 8), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "digit.png")
    Image.effect_mandelbrot((96, 64), (-2, -1, 1, 1), 20).convert("RGB").save(tmp_path / "cat.png")
    (tmp_path / "old.html").write_text("old")
    (tmp_path / "text.png").write_text("no picture")
    torch.save({"epoch": 1, "state_dict": {}}, tmp_path / "other.ckpt")
    torch.save({"epoch": 1, "state_dict": {}, "run": {"options": {}}}, tmp_path / "empty.ckpt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pth")
    (tmp_path / "strange.py").write_text(STRANGE)
    monkeypatch.delitem(sys.modules, "strange", raising=False)
    return tmp_path


STRANGE = f"""
from collections import OrderedDict
from torch import nn

def named():
    conv = nn.Conv2d(3, 4, 3, stride=8)
    return nn.Sequential(OrderedDict([("{MARKUP}", conv), ("pool", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())]))

class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("no, thanks\\nreally")

class Detached(nn.Module):
    def forward(self, x):
        return x.detach().flatten(1)

class Pair(nn.Module):
    def forward(self, x):
        return {{"out": x}}
"""


def by_autograd(network: nn.Module, x: Tensor, target: int) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Of each module without modules, for each call, y and dL/dy: the gradient of zeros that are added to y."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, module in network.named_modules():
        if not [*module.children()]:

            def add(_: nn.Module, __: Any, y: Tensor, name: str = name) -> Tensor:
                zeros = torch.zeros_like(y, requires_grad=True)
                found.setdefault(name, []).append((y.detach().clone(), zeros))
                return y + zeros

            module.register_forward_hook(add)
    nn.functional.cross_entropy(network.eval()(x), torch.tensor([target])).backward()
    return found


def own_networks() -> dict[str, Callable[[], nn.Module]]:
    return {
        "lecture004": lambda: NETWORKS["lecture004"](torch_layers, (3, 32, 32), 10),
        "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
        "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
        "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), 8, num_classes=10),
    }


@pytest.mark.parametrize("name", own_networks())
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-7), (torch.float32, 1e-3)], ids=["float64", "float32"])
def test_deltas_and_kernel_gradients_are_those_of_autograd(name: str, dtype: torch.dtype, close: float) -> None:
    """In float64 to 1e-7: PyTorch's derivative of hardsigmoid is 1/6 as float32 has it."""
    torch.manual_seed(0)
    network = own_networks()[name]().to(dtype)
    before = copy.deepcopy(network)
    x = torch.randn(1, 3, 32, 32, dtype=dtype)
    seen = look(network, x, 3)
    assert all(p.grad is None for p in network.parameters())
    assert [type(m) for m in network.modules()] == [type(m) for m in before.modules()]
    expected = by_autograd(before, x, 3)
    weights = dict(before.named_parameters())
    silent = {n for n, m in before.named_modules() if isinstance(m, nn.Identity | nn.Dropout | nn.Flatten)}
    assert {layer.name for layer in seen.layers} == expected.keys() - silent
    for layer in seen.layers:
        assert layer.calls == len(expected[layer.name])
        y, zeros = expected[layer.name][layer.call - 1]
        assert zeros.grad is not None
        assert layer.delta is not None
        assert_close(layer.activation, y, close)
        assert_close(layer.delta, zeros.grad, close)
        if layer.dw is not None:
            expected_dw = weights[f"{layer.name}.weight"].grad
            assert expected_dw is not None
            assert_close(layer.dw, expected_dw, close)
    assert seen.left == []


def assert_close(t: Tensor, expected: Tensor, close: float) -> None:
    assert t.shape == expected.shape
    assert (t - expected).abs().max() <= close * expected.abs().max()


def test_the_prediction_is_the_label_if_there_is_no_other() -> None:
    torch.manual_seed(0)
    network, x = torchvision.models.resnet18(num_classes=10), torch.randn(1, 3, 32, 32)
    z = copy.deepcopy(network).eval()(x)[0]
    seen, other = look(network, x), look(network, x, 4)
    assert (seen.target, other.target) == (int(z.argmax()), 4)
    for each in (seen, other):
        torch.testing.assert_close(torch.tensor(each.loss), -z.detach().log_softmax(0)[each.target])


def test_a_layer_that_the_loss_does_not_need_has_no_delta() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return self.used(x)

    unused, used = look(Aside(), torch.randn(1, 4)).layers
    assert (unused.name, unused.delta, unused.dw) == ("unused", None, None)
    assert used.delta is not None
    assert used.dw is not None


@pytest.mark.parametrize(("name", "loss"), [("lecture004", "cross-entropy"), ("mlp", "squares")])
def test_a_checkpoint_is_the_network_that_was_trained(name: str, loss: str, here: Path) -> None:
    path = Path(f"runs/digits-{name}/version_0/best.ckpt")
    subject = of_checkpoint(path, Path("digit.png"))
    state = torch.load(path, weights_only=True)["state_dict"]
    network = NETWORKS[name](torch_layers, (1, 8, 8), 10)
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    pixels = torch.tensor([*Image.open("digit.png").tobytes()], dtype=torch.uint8).view(1, 8, 8)
    assert torch.equal(subject.pixels, pixels)
    scores = network.eval()(((pixels.float() - state["mean"]) / state["std"])[None])[0].detach()
    seen = look(subject.network, subject.x, 3, subject.loss)
    assert_close(seen.scores, scores, 1e-5)
    squares = 0.5 * (scores - torch.eye(10)[3]).square().sum()
    expected = squares if loss == "squares" else -scores.log_softmax(0)[3]
    assert math.isclose(seen.loss, float(expected), rel_tol=1e-4)


def test_the_weights_of_a_file(here: Path) -> None:
    torch.manual_seed(1)
    network = torchvision.models.resnet18()
    torch.save(network.state_dict(), "own.pth")
    subject = of_model(RESNET18, Path("own.pth"), Path("cat.png"))
    for p, expected in zip(subject.network.parameters(), network.parameters(), strict=True):
        assert torch.equal(p, expected)
    prepare = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    assert torch.equal(subject.x[0], prepare(Image.open("cat.png")))
    assert subject.classes[285] == "Egyptian cat"


def test_which_maps_and_which_kernels() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(12, 40, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 20))
    conv, _, linear = look(network, torch.randn(1, 12, 9, 9)).layers
    y = maps_of(conv.activation)
    maps = largest(y)
    assert len(maps) == MOST
    norms = y.flatten(1).norm(dim=1)
    others = [norms[o] for o in range(40) if o not in maps.tolist()]
    assert norms[maps].min() >= max(others)
    found = kernels_of(conv, maps)
    assert found is not None
    w, dw, n = found
    assert (n, w.shape, dw.shape) == (INPUTS, (n * MOST, 3, 3), (n * MOST, 3, 3))
    own = conv.layer.get_parameter("weight")
    assert own.grad is not None
    inputs = largest(own.detach()[maps].transpose(0, 1), INPUTS)
    for k, (c, o) in enumerate((c, o) for c in inputs for o in maps):
        assert torch.equal(w[k], own.detach()[o, c])
        assert torch.equal(dw[k], own.grad[o, c])
    found = kernels_of(linear, torch.tensor([0, 7]))
    assert found is not None
    assert torch.equal(found[0], network[3].get_parameter("weight").detach()[[0, 7]])


def test_features_that_stand_last_are_the_maps() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Flatten())
    for layer in look(network, torch.randn(1, 4, 2, 3)).layers:
        assert torch.equal(layer.maps_of(layer.activation), layer.activation[0].movedim(2, 0))
    (tokens, *_) = look(network, torch.randn(1, 6, 3)).layers
    assert torch.equal(tokens.maps_of(tokens.activation), tokens.activation[0].T)


def test_kernels_of_a_connection_table() -> None:
    table = [[0, 2], [1, 2], [0, 1, 2]]
    layer = manualbp.nn.ConnectedConv2d(3, 3, 2, table)
    (seen, *_) = look(nn.Sequential(layer, nn.Flatten()), torch.randn(1, 3, 4, 4)).layers
    found = kernels_of(seen, torch.tensor([0, 2]))
    assert found is not None
    w = layer.weight.detach()
    assert torch.equal(found[0], w[[0, 4, 1, 5]])  # first kernels of the maps 0 and 2, then their second ones


def numbers(uri: str) -> Tensor:
    """The levels of a picture, -1 ... 1; NaN for lines and what is no number."""
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert image.mode == "P"
    colours = torch.tensor([*image.convert("RGBA").tobytes()]).view(image.height, image.width, 4)
    sign = (colours[..., :3] == torch.tensor(POSITIVE)).all(2).int() - (colours[..., :3] == torch.tensor(NEGATIVE)).all(
        2
    ).int()
    assert ((sign != 0) | (colours[..., 3] == 0) | (colours[..., 3] == 110)).all()
    return torch.where((sign == 0) & (colours[..., 3] > 0), torch.nan, sign * colours[..., 3] / 255)


def test_a_picture_says_its_numbers() -> None:
    maps = torch.linspace(-2, 1, 3 * 20 * 30).view(3, 20, 30)
    picture = sheet(maps, 2)
    assert (picture.low, picture.high, picture.of, picture.columns) == (-2, 1, 1, 2)
    shown = numbers(picture.uri)
    assert shown.shape == (2 * 20 + 1, 2 * 30 + 1)
    expected = (maps / picture.scale).clamp(-1, 1)
    for map_, (i, j) in zip(expected, [(0, 0), (0, 31), (21, 0)], strict=True):
        assert (shown[i : i + 20, j : j + 30] - map_).abs().max() <= 0.5 / LEVELS + 0.5 / 255
    assert shown[20].isnan().all()
    assert shown[:, 30].isnan().all()
    assert shown[21:, 31:].isnan().all()


def test_a_large_map_shows_the_largest_and_a_small_one_is_drawn_larger() -> None:
    maps = torch.zeros(1, 2 * LARGEST, 2 * LARGEST)
    maps[0, 5, 8], maps[0, 4, 8] = -3, 1
    picture = sheet(maps)
    shown = numbers(picture.uri)
    assert picture.of == 2
    assert shown.shape == (LARGEST, LARGEST)
    assert shown[2, 4] == -1
    assert shown.count_nonzero() == 1
    small = numbers(sheet(torch.tensor([[[1.0, -1.0]]]), smallest=8).uri)
    assert torch.equal(small, torch.tensor([[1.0] * 4 + [-1.0] * 4] * 4))


def test_the_scale_leaves_out_a_hundredth_and_takes_what_is_there() -> None:
    t = torch.full((1, 20, 20), 0.5)
    t[0, 0, :2] = torch.tensor([100.0, -50.0])
    picture = sheet(t)
    assert (picture.scale, picture.low, picture.high) == (0.5, -50, 100)
    assert numbers(picture.uri)[0, :3].tolist() == [1, -1, 1]
    alone = torch.zeros(1, 40, 40)
    alone[0, 0, 0] = 2
    assert sheet(alone).scale == 2
    assert sheet(torch.zeros(2, 4, 4)).scale == 0
    numbers_alone = torch.ones(1000, 1, 1)
    numbers_alone[3] = -9
    assert sheet(numbers_alone).scale == 9
    none = torch.tensor([[[torch.nan, torch.inf, -1.0]]])
    picture = sheet(none, smallest=1)
    assert (picture.scale, picture.low, picture.high) == (1, -1, -1)
    assert numbers(picture.uri)[0].isnan().tolist() == [True, True, False]
    assert sheet(torch.full((1, 2, 2), torch.nan)).scale == 0


def test_a_vector_becomes_a_square() -> None:
    shown = numbers(sheet(torch.arange(1.0, 6.0)[None], smallest=1).uri)
    assert shown.isnan().tolist() == [[False] * 3, [False, False, True], [True] * 3]


def test_the_colours_are_the_means_of_the_light_and_the_dark_scale() -> None:
    css = (WEB / "base.css").read_text("utf-8")
    for name, colour in {"negative": NEGATIVE, "positive": POSITIVE}.items():
        found = re.search(rf"--{name}: light-dark\(#(\w+), #(\w+)\)", css)
        assert found
        light, dark = (bytes.fromhex(text) for text in found.groups())
        assert all(abs((a + b) / 2 - c) <= 0.5 for a, b, c in zip(light, dark, colour, strict=True))
    assert len(pictures.PALETTE) == 3 * len(pictures.ALPHA) == 3 * (NO_NUMBER + 1)


def test_command_of_a_checkpoint(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "explain --checkpoint runs/digits-lecture004/version_0/best.ckpt --image digit.png"
    assert main([*arguments.split(), "--target", "7"]) == 0
    assert capsys.readouterr().out == "explain.html is written\n"
    text = Path("explain.html").read_text("utf-8")
    assert "Loss for the label <b>7</b>" in text
    assert "lecture004 sees digit.png" in text
    subject = of_checkpoint(Path("runs/digits-lecture004/version_0/best.ckpt"), Path("digit.png"))
    seen = look(subject.network, subject.x, 7, subject.loss)
    rows = re.findall(r"<tr><th scope=\"row\"><a href=\"#layer-\d+\">(.*?)</a>.*?</th>(.*?)</tr>", text)
    assert [name for name, _ in rows] == ["g1", "f1", "pool1", "g2", "f2", "pool2", "W1", "f3", "W2"]
    for (_, cells), layer in zip(rows, seen.layers, strict=True):
        for cell, t in zip(
            re.findall("<td>(.*?)</td>", cells)[1:], (layer.activation, layer.delta, layer.dw), strict=True
        ):
            assert (cell == "\N{EN DASH}") == (t is None)
            if t is not None:
                assert math.isclose(float(cell), float(t.norm()), rel_tol=5e-3)
    assert main(arguments.split()) == 2
    assert main([*arguments.split(), "--force"]) == 0


def test_resnet18_at_224_pixels_is_under_3_mb(here: Path) -> None:
    assert main(["explain", "--model", RESNET18, "--image", "cat.png"]) == 0
    text = Path("explain.html").read_text("utf-8")
    assert len(text.encode()) < 3_000_000
    assert not re.search(r"(?:src|href)=[\"']?http|\{\{|<script", text)
    assert "every gradient by hand." in text
    assert "layer4.1.relu, call 2 of 2" in text
    assert "64 \N{MULTIPLICATION SIGN} 112 \N{MULTIPLICATION SIGN} 112: 16 of 64 maps" in text
    for alt in re.findall('<img src="data:image/png;base64,[^"]+" alt="([^"]*)"', text)[3:]:
        assert re.fullmatch(r"[\w., ]+, (activation|delta|kernels|kernel gradients), \d.* from .+ to .+: .+", alt), alt


MLP = "--checkpoint runs/digits-mlp/version_0/best.ckpt"
REFUSED = [
    (
        "--image cat.png",
        "argument --image: 'cat.png': it must be a number or two as 3x3, at least 1; a picture goes with",
    ),
    ("conv2d --image cat.png", "argument --image: 'cat.png'"),
    (f"--model {RESNET18}", "argument --image: --model needs the file of a picture"),
    (MLP, "argument --image: --checkpoint needs the file of a picture"),
    ("--checkpoint none.ckpt --image digit.png", "argument --checkpoint: none.ckpt: cannot be read"),
    ("--checkpoint . --image digit.png", "argument --checkpoint: .: cannot be read"),
    ("--checkpoint text.png --image digit.png", "argument --checkpoint: text.png: not a checkpoint, or a damaged one"),
    ("--checkpoint other.ckpt --image digit.png", "argument --checkpoint: other.ckpt: not a checkpoint of train.py"),
    ("--checkpoint empty.ckpt --image digit.png", "argument --checkpoint: empty.ckpt: not a checkpoint of train.py"),
    (f"{MLP} --image none.png", "argument --image: none.png: not a readable image"),
    (f"{MLP} --image text.png", "argument --image: text.png: not a readable image"),
    (f"{MLP} --image digit.png --target ten", "argument --target: ten; the classes are 0, 1, 2, 3, 4, ..."),
    (f"{MLP} --image digit.png --target 10", "argument --target: 10; the network has 10 classes, 0 to 9"),
    (f"{MLP} --image digit.png --weights other.pth", "argument --weights: it goes with --model"),
    (f"{MLP} --image digit.png --model {RESNET18}", "argument --model: it does not go with --checkpoint"),
    (f"{MLP} --image digit.png --kernel 3", "argument --kernel: it goes with a KIND, as conv2d, not with --checkpoint"),
    (f"conv2d {MLP} --image digit.png", "argument KIND: conv2d; --checkpoint takes none"),
    ("--weights other.pth", "argument --weights: it goes with --model"),
    ("relu --target 3", "argument --target: it goes with --checkpoint or --model"),
    ("--model strange --image cat.png", "argument --model: strange: it must be as torchvision.models:resnet18"),
    ("--model strange:none --image cat.png", "argument --model: strange has no none"),
    ("--model strange:Fails --image cat.png", "argument --model: strange:Fails: the network fails on an image of 1"),
    ("--model strange:Pair --image cat.png", "argument --model: strange:Pair: the network gives a dict; it must be"),
    ("--model strange:Detached --image cat.png", "argument --model: strange:Detached: the network gives scores that"),
    ("--model torch.nn:Identity --image cat.png", "argument --model: torch.nn:Identity: the network gives a tensor"),
    ("--model strange:named --image cat.png --target cat", "argument --target: cat; give its number"),
    ("--model strange:named --image none.png", "argument --image: none.png: not a readable image"),
    ("--model strange:named --image cat.png --weights other.pth", "argument --weights: other.pth: not the weights of"),
    ("--model strange:named --image cat.png --weights text.png", "argument --weights: text.png: not a file of torch"),
    ("--model strange:named --image cat.png --weights none.pth", "argument --weights: none.pth: cannot be read (No"),
    (f"{MLP} --image digit.png --out old.html", "argument --out: old.html exists already; --force writes over it"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refusals_are_one_line(arguments: str, message: str, here: Path, refused: Callable[..., None]) -> None:
    refused(arguments, message, here)


@pytest.mark.parametrize(
    ("arguments", "module"), [(MLP, "manualbp.training.run"), (f"--model {RESNET18}", "torchvision")]
)
def test_what_is_not_installed_is_named(
    arguments: str, module: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["explain", *arguments.split(), "--image", "digit.png"]) == 2
    assert 'pip install "manualbp[train]"' in capsys.readouterr().err


def test_names_are_text_and_never_markup(here: Path) -> None:
    Path("cat.png").rename(f"{MARKUP}.png")
    assert main(["explain", "--model", "strange:named", "--image", f"{MARKUP}.png"]) == 0
    text = Path("explain.html").read_text("utf-8")
    assert MARKUP not in text
    assert text.count(html.escape(MARKUP)) > 8
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    pixels = torch.zeros(1, 2, 2, dtype=torch.uint8)
    x = torch.randn(1, 1, 2, 2)
    subject = Subject(MARKUP, network, x, pixels, [MARKUP, MARKUP], None, True, MARKUP)
    text = trained_page.html(subject, look(network, x), MARKUP)
    assert MARKUP not in text
    assert text.count(html.escape(MARKUP)) > 5


@pytest.mark.parametrize("width", ["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser: Any, here: Path, width: str, scheme: str) -> None:
    """It says nothing to the console and asks for nothing (`opened`), fits, and axe finds nothing."""
    arguments = "explain --checkpoint runs/digits-lecture004/version_0/best.ckpt --image digit.png"
    assert main(arguments.split()) == 0
    for tab in opened(browser, here / "explain.html", width, scheme):
        assert tab.locator("h1").text_content() == "lecture004 sees digit.png"
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        shown = tab.locator("img").evaluate_all("all => all.map(image => [image.naturalWidth > 0, image.alt])")
        assert len(shown) == 3 + 9 * 2 + 4 * 2
        assert all(drawn and alt for drawn, alt in shown)
        tab.locator("a[href='#layer-3']").click()
        assert tab.locator("#layer-3 h3").is_visible()
        assert tab.locator("#layer-3 figure").count() == 4
        tab.evaluate(AXE.read_text())
        found = tab.evaluate("axe.run({resultTypes: ['violations']})")
        assert [(each["id"], each["nodes"][0]["html"][:300]) for each in found["violations"]] == []
