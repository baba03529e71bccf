"""docs/derivations.md leads to every rule, has a row for every formula of the lectures; no page has a dead link."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import manualbp.functional as F

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "manualbp"
PAGE = ROOT / "docs" / "derivations.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXT = PAGE.read_text()
README = (ROOT / "README.md").read_text()
ROWS = [f"{lecture}.{row}" for lecture, rows in [(1, 8), (2, 5), (3, 5), (4, 9)] for row in range(1, rows + 1)]
# One or more names of code, then the file that they are in.
NAMES_IN_FILE = r"((?:`\w+`(?:, |,\n|\s+and\s+)?)+)\s+in\s+\[[^\]]*\]\((\.\./manualbp/[^)]+)\)"


def path_of(function: str) -> str:
    """The file that a public function is in, as the page links it."""
    file = inspect.getsourcefile(inspect.unwrap(getattr(F, function)))
    return f"../manualbp/{Path(file or '').relative_to(PACKAGE).as_posix()}"


def files_of_rules() -> list[str]:
    """The files of functional/ and fuse/ that hold a rule."""
    found, kinds = [], set(re.findall(r"^class (\w*Rule)\(", (PACKAGE / "functional" / "rule.py").read_text(), re.M))
    for file in sorted([*(PACKAGE / "functional").rglob("*.py"), *(PACKAGE / "fuse").rglob("*.py")]):
        classes = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
        if any(kinds & {ast.unparse(base) for base in node.bases} for node in classes) and file.name != "rule.py":
            found.append(f"../manualbp/{file.relative_to(PACKAGE).as_posix()}")
    return found


def anchors(text: str) -> list[str]:
    """What the headings can be linked by."""
    return [
        re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.M)
    ]


def dead_links(page: Path, text: str) -> list[str]:
    """Links that lead nowhere: to a file that is not there, or to a heading that the page lacks."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if re.match(r"https?://", target):
            continue
        if file and not (page.parent / file).exists():
            dead.append(f"no file {target}")
        elif anchor and anchor not in anchors((page.parent / file).read_text() if file else text):
            dead.append(f"no anchor #{anchor}")
    return dead


def complaints(text: str) -> list[str]:
    """What the derivations lack."""
    _, _, table = text.partition("\n## Every rule\n")
    table = table.partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| [^|]+ \| [^|]+ \| \[[^\]]*\]\(([^)]+)\) \|$", table, re.MULTILINE)
    linked = [(name, target) for names, target in rows for name in re.findall(r"`(\w+)`", names)]
    listed = [name for name, _ in linked]
    lacking = [f"no row of {name}" for name in F.__all__ if name not in listed]
    lacking += [f"two rows of {name}" for name in sorted({name for name in listed if listed.count(name) > 1})]
    lacking += [f"{name} is no public rule" for name in listed if name not in F.__all__]
    lacking += [
        f"{name} is in {path_of(name)}, not in {target}"
        for name, target in linked
        if name in F.__all__ and target != path_of(name)
    ]
    lacking += [f"no link to {file}" for file in files_of_rules() if f"]({file})" not in text]
    lacking += [f"no row {row}" for row in ROWS if not re.search(rf"^\| {re.escape(row)} \|", text, re.MULTILINE)]
    contents = re.findall(r"\]\((#[^)]+)\)", text.partition("\n## Contents\n")[2].partition("\n## ")[0])
    lacking += [f"the contents list {a} twice" for a in sorted({a for a in contents if contents.count(a) > 1})]
    lacking += [f"the contents lack #{a}" for a in anchors(text)[2:] if f"#{a}" not in contents]
    for names, target in re.findall(NAMES_IN_FILE, text):
        code = (PAGE.parent / target).read_text() if (PAGE.parent / target).is_file() else ""
        for name in re.findall(r"`(\w+)`", names):
            if not re.search(rf"^(?:def |class )?{name}\b", code, re.MULTILINE):
                lacking.append(f"no {name} in {target}")
    return lacking + dead_links(PAGE, text)


def test_nothing_is_lacking() -> None:
    assert complaints(TEXT) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_is_dead(page: Path) -> None:
    assert dead_links(page, page.read_text()) == []


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 142


def test_the_readmes_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example, *_ = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    exec(example, {})
    assert capsys.readouterr().out == "True\n"


@pytest.mark.parametrize("file", ["manualbp/functional/conv.py", "tests/lectures/test_002.py"])
def test_the_readmes_picture_is_the_code(file: str) -> None:
    """Each line that the picture shows of a file is in it."""
    name = file.partition("/")[2]
    (shown,) = re.findall(rf"^{re.escape(name)} +(\S.*?)(?=\n\n|\n```)", README, re.DOTALL | re.MULTILINE)
    code = (ROOT / file).read_text()
    lines = [line.strip().replace('"""', "") for line in shown.splitlines()]
    assert len(lines) > 2
    assert [line for line in lines if line not in code] == []


@pytest.mark.parametrize(
    ("there", "instead", "complaint"),
    [
        ("`softmax`, `log_softmax` | formula", "`softmax` | formula", "no row of log_softmax"),
        ("`softmax`, `log_softmax` | formula", "`softmax`, `logsoftmax` | formula", "logsoftmax is no public rule"),
        ("`softmax`, `log_softmax` | formula", "`softmax`, `pad`, `log_softmax` | formula", "two rows of pad"),
        (
            "[linear.py](../manualbp/functional/linear.py)",
            "[linear.py](../manualbp/functional/pool.py)",
            "linear is in",
        ),
        ("(../manualbp/fuse/affine.py)", "(../manualbp/fuse/norm.py)", "no link to ../manualbp/fuse/affine.py"),
        ("| 2.3 | `delta", "| 2.33 | `delta", "no row 2.3"),
        ("- [Every rule](#every-rule)", "- [Every rule](#errata)", "the contents list #errata twice"),
        ("- [Every rule](#every-rule)", "- Every rule", "the contents lack #every-rule"),
        ("(#true-convolution)", "(#true-correlation)", "no anchor #true-correlation"),
        (
            "../manualbp/functional/pool.py",
            "../manualbp/functional/pools.py",
            "no file ../manualbp/functional/pools.py",
        ),
        ("`TrueConv2d` in", "`FalseConv2d` in", "no FalseConv2d in ../manualbp/nn/conv.py"),
    ],
)
def test_what_is_lacking_is_found(there: str, instead: str, complaint: str) -> None:
    assert there in TEXT
    assert any(found.startswith(complaint) for found in complaints(TEXT.replace(there, instead)))
