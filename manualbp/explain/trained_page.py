"""A look into a trained network as one file: plain HTML with its pictures in it, from web/trained.html."""

from html import escape

import torch
from torch import Tensor

from manualbp.explain.pages import filled, style
from manualbp.explain.pictures import Picture, png, ramp, sheet
from manualbp.explain.subjects import Subject
from manualbp.explain.trained import MOST, Look, Seen, kernels_of, largest, maps_of

BEST = 5  # classes whose scores are listed
WIDE, LONG = 32, 1024  # numbers in a row of a vector's picture: twice as many if it is longer than this
NUMBER = 8  # pixels of a number there


def html(subject: Subject, seen: Look, image: str) -> str:
    """The file's text. image: the name of its file. Names of files, layers and classes are escaped."""
    title = f"{subject.name} sees {image}"
    parts = {
        "title": escape(title),
        "css": style("trained.css"),
        "about": escape(about(subject, seen)),
        "image": shown_image(subject, seen, image),
        "prediction": prediction(subject, seen),
        "ramp": ramp(),
        "most": str(MOST),
        "rows": "\n".join(row(i, layer) for i, layer in enumerate(seen.layers)),
        "layers": "\n".join(section(i, layer) for i, layer in enumerate(seen.layers)),
    }
    return filled("trained.html", parts)


def about(subject: Subject, seen: Look) -> str:
    left = f" but for PyTorch's {', '.join(seen.left)}" if seen.left else ""
    return f"{subject.note} In evaluation mode; every gradient by hand{left}."


def name_of(target: int, classes: list[str]) -> str:
    return classes[target] if target < len(classes) else f"class {target}"


def number(value: float) -> str:
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def written(shape: torch.Size | tuple[int, ...]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape))


def shown_image(subject: Subject, seen: Look, image: str) -> str:
    C, H, W = subject.pixels.shape
    alt = f"The image {image} as the network sees it, {written((H, W))} pixels, {'grey' if C == 1 else 'in colour'}"
    figures = f'<figure class="photo">{tag(png(subject.pixels), alt)}<figcaption>{escape(alt)}.</figcaption></figure>'
    if seen.delta is None:
        return figures
    delta = sheet(maps_of(seen.delta), columns=len(maps_of(seen.delta)))
    what = f"{len(maps_of(seen.delta))} maps: how the loss changes with each number of the image"
    return figures + figure("delta", "delta of the image", delta, seen.delta.shape[1:], what, "the image")


def prediction(subject: Subject, seen: Look) -> str:
    """The loss, and the best classes with the target's own."""
    chances = seen.scores.double().softmax(0)
    best = seen.scores.topk(min(BEST, len(seen.scores))).indices.tolist()
    rows = [*best, *([] if seen.target in best else [seen.target])]
    head = "<th scope='col'>probability</th>" if subject.probabilities else ""
    lines = []
    for k in rows:
        mark = " (the label)" if k == seen.target else ""
        chance = float(chances[k])
        bar = f'<td><span class="bar" style="--value: {chance:.4f}"></span> {number(chance)}</td>'
        lines.append(
            f"<tr><th scope='row'>{escape(name_of(k, subject.classes))}{mark}</th><td>{number(float(seen.scores[k]))}"
            f"</td>{bar if subject.probabilities else ''}</tr>"
        )
    predicted, label = (escape(name_of(k, subject.classes)) for k in (best[0], seen.target))
    return (
        f"<p>Prediction: <b>{predicted}</b>. Loss for the label <b>{label}</b>: <b>{number(seen.loss)}</b>.</p>"
        f'<table><caption class="quiet">{len(best)} best of {len(seen.scores)} classes</caption>'
        f"<thead><tr><th scope='col'>class</th><th scope='col'>score</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def norm(t: Tensor | None) -> str:
    return "\N{EN DASH}" if t is None else number(float(t.double().norm()))


def row(i: int, layer: Seen) -> str:
    cells = (written(layer.activation.shape[1:]), norm(layer.activation), norm(layer.delta), norm(layer.dw))
    kind = layer.kind.rpartition(".")[2]
    head = f'<th scope="row"><a href="#layer-{i}">{escape(layer.title)}</a> <small>{escape(kind)}</small></th>'
    return f"<tr>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def section(i: int, layer: Seen) -> str:
    """A layer's figures: activation and delta of the same maps, then their kernels and the kernels' gradients."""
    y, shape = layer.maps_of(layer.activation), layer.activation.shape[1:]
    delta = None if layer.delta is None else layer.maps_of(layer.delta)
    maps = largest(y if delta is None else y * delta)
    vector = y[0].numel() == 1
    if vector:
        what = f"all {len(y)} numbers, row by row"
    else:
        which = f"those that the loss depends on most: {', '.join(map(str, maps.tolist()))}"
        what = f"{len(maps)} of {len(y)} maps, {which}" if len(maps) < len(y) else f"all {len(y)} maps"
    figures = []
    for kind, t in {"activation": y, "delta": delta}.items():
        if t is None:
            figures.append("<p>No delta: the loss does not depend on this layer.</p>")
            continue
        double = 1 + (len(t) > LONG)
        picture = sheet(t.view(-1, 1, 1), WIDE * double, NUMBER // double) if vector else sheet(t[maps])
        figures.append(figure(kind, kind, picture, shape, what, layer.title))
        what = what if vector or len(maps) == len(y) else "the same maps"
    pair = kernels_of(layer, maps)
    if pair is not None and layer.w is not None:
        w, dw, n = pair
        of = f"of the outputs {', '.join(map(str, maps.tolist()))}" if vector else "of these maps"
        inputs = f", each of {n} of its input maps from top to bottom" if n > 1 else ""
        columns = len(maps) if w.dim() == 3 else 8
        for title, t in {"kernels": w, "kernel gradients": dw}.items():
            kind = "kernel" if t is w else "gradient"
            figures.append(figure(kind, title, sheet(t, columns), layer.w.shape, of + inputs, layer.title))
    return (
        f'<section class="layer" id="layer-{i}"><h3>{escape(layer.title)} '
        f'<small>{escape(layer.kind)}</small></h3><div class="figures">{"".join(figures)}</div></section>'
    )


def figure(kind: str, title: str, picture: Picture, shape: tuple[int, ...], what: str, layer: str) -> str:
    """A picture, below it what it shows, its numbers' range, and the scale's largest value."""
    range_ = f"from {number(picture.low)} to {number(picture.high)}"
    of = f" Each pixel is the largest in size of {written((picture.of,) * 2)} numbers." if picture.of > 1 else ""
    alt = f"{layer}, {title}, {written(shape)}, {range_}: {what}"
    scale = f"\N{PLUS-MINUS SIGN}{number(picture.scale)}" if picture.scale else "all are 0"
    caption = f"<b>{escape(title)}</b> {written(shape)}: {escape(what)}.{of} {range_.capitalize()};"
    caption += f' <span class="scale">full colour from <b>{scale}</b> on</span>.' if picture.scale else f" {scale}."
    return (
        f'<figure class="{kind}" style="--tiles: {picture.columns}">{tag(picture.uri, alt)}'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def tag(uri: str, alt: str) -> str:
    return f'<img src="{uri}" alt="{escape(alt)}" decoding="async">'
