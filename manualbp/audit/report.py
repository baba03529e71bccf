"""What an audit found: the verdict first, then the place, then the likely cause."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

from torch import Tensor

from manualbp.text import WIDTH, table

WRONG, UNKNOWN, NOTE = "wrong", "cannot tell", "note"
RIGHT = "right"


@dataclass(frozen=True)
class Finding:
    """What a check says: kind is "wrong", "cannot tell" or "note"; input names whose gradient it is, if it is one's."""

    check: str
    kind: str
    what: str
    input: str | None = None
    cause: str | None = None


@dataclass
class Report:
    """Truthy where the backward pass is right. `verdict`: "right", "wrong" or "cannot tell"; `findings` say why.

    checks: those that ran, with their seconds; left_out: those that did not, and why. given, true: of the first wrong
    gradient both, where the inputs are small enough to tell.
    """

    name: str
    seed: int
    findings: list[Finding] = field(default_factory=list)
    checks: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    given: Tensor | None = None
    true: Tensor | None = None

    @property
    def verdict(self) -> str:
        kinds = {finding.kind for finding in self.findings}
        return WRONG if WRONG in kinds else UNKNOWN if UNKNOWN in kinds else RIGHT

    @property
    def causes(self) -> list[str]:
        """The likely causes, each once."""
        return [*dict.fromkeys(f.cause for f in self.findings if f.kind == WRONG and f.cause)]

    def __bool__(self) -> bool:
        return self.verdict == RIGHT

    def __str__(self) -> str:
        head = f"{self.name}: the backward pass is {self.verdict}" if self.verdict != UNKNOWN else (
            f"{self.name}: cannot tell whether the backward pass is right"
        )  # fmt: skip
        order = (WRONG, UNKNOWN, NOTE)
        found = sorted(self.findings, key=lambda finding: order.index(finding.kind))
        rows = [(f.kind, f.check, f"{f.input}: {f.what}" if f.input else f.what) for f in found]
        lines = [head, *table(rows, 0, WIDTH)] if rows else [head]
        lines += [f"likely cause: {cause}" for cause in self.causes]
        if self.given is not None:
            lines.append('true gradient, given one and difference: report.plot("FILE.png"), in a shell --plot FILE.png')
        lines.append(f"{len(self.checks)} checks in {sum(self.checks.values()):.1f} s, seed {self.seed}")
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            lines += wrap(f"left out, {reason}: {', '.join(names)}", WIDTH, subsequent_indent="    ")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        plain = {"name": self.name, "verdict": self.verdict, "causes": self.causes, "seed": self.seed}
        found = [asdict(finding) for finding in self.findings]
        return {**plain, "findings": found, "checks": self.checks, "left_out": self.left_out}

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    def plot(self, path: str | Path) -> None:
        """The true gradient, the given one and their difference, of the first wrong one, into a new file.

        Of more than two axes the last two are shown, of the place on the others where the difference is largest.
        Raises ValueError where no gradient is wrong, FileExistsError where the file is there. It needs matplotlib.
        """
        if self.given is None or self.true is None:
            raise ValueError(f"audit: {self.name} has no wrong gradient that could be drawn")
        from matplotlib.figure import Figure

        given, true = (t.reshape((1,) * (2 - t.ndim) + t.shape) for t in (self.given, self.true))
        off = (given - true).abs().nan_to_num()
        sheet = int(off.flatten(0, -3).amax((-2, -1)).argmax()) if off.ndim > 2 else 0
        given, true = (t.reshape(-1, *t.shape[-2:])[sheet] for t in (given, true))
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        size = float(true.abs().max()) or 1.0
        images = []
        for axes, title, t in zip(
            figure.subplots(1, 3), ("true", "given", "given - true"), (true, given, given - true), strict=True
        ):
            images.append(axes.imshow(t.numpy(), cmap="RdBu_r", vmin=-size, vmax=size))
            axes.set(title=title, xticks=[], yticks=[])
        figure.colorbar(images[0], ax=figure.axes, shrink=0.8)
        figure.suptitle(self.name, fontsize=10)
        with Path(path).open("xb") as file:
            figure.savefig(file, dpi=150, format=Path(path).suffix[1:] or "png")
