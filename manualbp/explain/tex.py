"""The formulas of docs/derivations.md, from the part of TeX that they are written in to MathML."""

import re
from collections import deque
from html import escape
from typing import Any

LETTERS = {"delta": "δ", "phi": "φ", "gamma": "\u03b3", "beta": "β", "mu": "μ", "partial": "∂"}
SIGNS = {"sum": "∑", "max": "max", "langle": "⟨", "rangle": "⟩", "cdot": "⋅", "_": "_", "-": "\u2212", "'": "\u2032"}
SPACES = {",": 0.17, ";": 0.28, " ": 0.33, "quad": 1, "qquad": 2}  # em
UNDER = ("sum", "max")  # what is below them stands under them
TOKEN = re.compile(r"\\(text|mathrm)\{([^}]*)\}|\\([A-Za-z]+|.)|([0-9]+(?:\.[0-9]+)?)|(\S)", re.DOTALL)


def mathml(tex: str, display: bool = False) -> str:
    """The formula. Raises ValueError naming a command that is not known here."""
    tokens = deque(TOKEN.findall(tex))
    how = ' display="block"' if display else ""
    made = f"<math{how}>{''.join(_row(tokens))}</math>"
    if tokens:
        raise ValueError(f"formula: {tex!r} goes on behind its end")
    return made


def _row(tokens: deque[Any]) -> list[str]:
    """Atoms with what stands below and above them, up to what closes the row."""
    made: list[str] = []
    while tokens and _plain(tokens[0]) != "}" and _command(tokens[0]) not in ("right", "\\"):
        under = _command(tokens[0]) in UNDER
        atom, scripts = _atom(tokens), {"_": "", "^": ""}
        while tokens and (sign := _plain(tokens[0])) in ("_", "^", "'"):
            tokens.popleft()
            scripts["^" if sign == "'" else sign] += _sign("'") if sign == "'" else _group(tokens)
        below, above = (f"<mrow>{part}</mrow>" if part else "" for part in scripts.values())
        if below or above:
            tag = ("munder" if under else "msub") if not above else "msup" if not below else "msubsup"
            atom = f"<{tag}>{atom}{below}{above}</{tag}>"
        made.append(atom)
    return made


def _atom(tokens: deque[Any]) -> str:
    words, text, command, number, sign = tokens.popleft()
    if words == "text":
        return f"<mtext>{escape(text).replace(' ', '&nbsp;')}</mtext>"
    if words:
        return f'<mi mathvariant="normal">{escape(text).replace(chr(92), "")}</mi>'
    if number:
        return f"<mn>{number}</mn>"
    if sign == "{":
        inner = "".join(_row(tokens))
        tokens.popleft()
        return f"<mrow>{inner}</mrow>"
    if sign:
        return f"<mi>{sign}</mi>" if sign.isalpha() else _sign(sign)
    if command in LETTERS:
        return f"<mi>{LETTERS[command]}</mi>"
    if command in SPACES:
        return f'<mspace width="{SPACES[command]}em"></mspace>'
    if command in SIGNS:
        return _sign(command)
    if command == "log":
        return '<mi>log</mi><mspace width="0.17em"></mspace>'
    if command == "frac":
        return f"<mfrac><mrow>{_group(tokens)}</mrow><mrow>{_group(tokens)}</mrow></mfrac>"
    if command == "hat":
        return f'<mover accent="true"><mrow>{_group(tokens)}</mrow><mo>^</mo></mover>'
    if command == "left":
        opening = _plain(tokens.popleft())
        inner = "".join(_row(tokens))
        _, closing = tokens.popleft(), _plain(tokens.popleft())
        return f"<mrow><mo>{opening}</mo>{inner}<mo>{closing}</mo></mrow>"
    if command == "substack":
        return f"<mtable>{_stack(tokens)}</mtable>"
    raise ValueError(f"formula: \\{command} is not known")


def _group(tokens: deque[Any]) -> str:
    """What stands in braces, or one atom."""
    if _plain(tokens[0]) != "{":
        return _atom(tokens)
    tokens.popleft()
    made = "".join(_row(tokens))
    tokens.popleft()
    return made


def _stack(tokens: deque[Any]) -> str:
    lines = []
    closing = None
    while closing != "}":  # each line is begun by a brace or a break, and ended by one
        tokens.popleft()
        lines.append(f"<mtr><mtd>{''.join(_row(tokens))}</mtd></mtr>")
        closing = _plain(tokens[0])
    tokens.popleft()
    return "".join(lines)


def _sign(name: str) -> str:
    stretchy = ' stretchy="false"' if name in ("(", ")", "[", "]", "langle", "rangle") else ""
    return f"<mo{stretchy}>{escape(SIGNS.get(name, name))}</mo>"


def _plain(token: tuple[str, ...]) -> str:
    return token[4]


def _command(token: tuple[str, ...]) -> str:
    return token[2]
