"""Formulas as MathML. What goes in is written by this package: letters, numbers and signs, escaped all the same."""

import re
from fractions import Fraction
from html import escape

LETTERS = {"delta": "d"}  # the letter of its cells, as in the tables of lecture 002
MINUS, PRIME = "\u2212", "\u2032"
TOKEN = re.compile(r"sum_\{([^}]*)\}|([A-Za-z]+[0-9]*)(?:\[([^\]]*)\])?(')?|([0-9]+(?:\.[0-9]+)?)|(\S)")
ALL, HEAD = 6, 4  # a sum of more terms than ALL is written as its first HEAD and its last one


def formula(text: str) -> str:
    """`y[i] = sum_{p} x[i+p] w[p]` as a formula: what stands in brackets is an index."""
    return f"<math>{_row(text)}</math>"


def _row(text: str) -> str:
    return "".join(_token(found) for found in TOKEN.finditer(text))


def _token(found: re.Match[str]) -> str:
    over, name, index, prime, number, sign = found.groups()
    if over is not None:
        return f"<munder><mo>∑</mo><mrow>{_row(over)}</mrow></munder>"
    if name is not None:
        letter = f"<mi>{escape(LETTERS.get(name, name))}{PRIME if prime else ''}</mi>"
        return letter if index is None else f"<msub>{letter}<mrow>{_row(index)}</mrow></msub>"
    return f"<mn>{number}</mn>" if number is not None else f"<mo>{escape(sign.replace('-', MINUS))}</mo>"


def symbol(stem: str, index: str) -> str:
    """A cell: its letter, and its index below."""
    letter = f"<mi>{escape(stem)}</mi>"
    return f"<msub>{letter}<mn>{index}</mn></msub>" if index else letter


def fraction(c: float) -> str:
    """A coefficient as it is said: 1/9."""
    return str(Fraction(c).limit_denominator(10_000))


def filled(result: str, terms: list[tuple[float, list[str]]]) -> str:
    """The sum that a cell is, of symbols; a long one is cut in its middle."""
    shown = [(_signed(c, factors), i) for i, (c, factors) in enumerate(terms)]
    if len(shown) > ALL:
        shown = [*shown[:HEAD], (("+", "<mo>⋯</mo>"), HEAD), shown[-1]]
    parts = [text if i == 0 and sign == "+" else f"<mo>{sign}</mo>{text}" for (sign, text), i in shown]
    return f"<math>{result}<mo>=</mo>{''.join(parts) or '<mn>0</mn>'}</math>"


def _signed(c: float, factors: list[str]) -> tuple[str, str]:
    size = "" if abs(c) == 1 else f"<mn>{fraction(abs(c))}</mn>"
    return MINUS if c < 0 else "+", size + "".join(factors)
