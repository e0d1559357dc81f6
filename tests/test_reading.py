"""The pages for readers: quoted code is in its function, named tests exist.

Run: pytest tests/test_reading.py
"""

import ast
import re
from itertools import pairwise
from textwrap import dedent

import pytest
import torch
from helpers import ROOT
from largest_errors import LargestErrors

LOOSE = {"rtol": 0.0, "atol": 1.0}
CLAIMS = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
READING = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: section
    for section in re.split(r"^## ", READING, flags=re.MULTILINE)[1:]
}
PLACE = re.compile(r"^`(minibert/[\w/]+\.py)`: `([\w.]+)`$", re.MULTILINE)
TEST = re.compile(r"`(test_\w+\.py)`: `(test_\w+)`")
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def defined(node: ast.AST, name: str) -> ast.stmt | None:
    """Return what a module or a class defines under a name."""
    for child in ast.iter_child_nodes(node):
        names = [target.id for target in getattr(child, "targets", []) if hasattr(target, "id")]
        if name in [getattr(child, "name", None), *names]:
            assert isinstance(child, ast.stmt)
            return child
    return None


def source_of(file: str, path: str) -> str:
    """Return the lines of a function, a class or an assignment, such as `Block.forward`."""
    source = (ROOT / file).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(source)
    for name in path.split("."):
        found = defined(node, name)
        assert found is not None, f"{file} has no {path}"
        node = found
    return "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])


def contains(source: str, lines: str) -> bool:
    """Return whether the lines are in the source, one below the other, at any indentation."""
    wanted, found = dedent(lines).splitlines(), source.splitlines()
    parts = (found[start : start + len(wanted)] for start in range(len(found)))
    return any(dedent("\n".join(part)).splitlines() == wanted for part in parts)


def quotations() -> list[tuple[str, str, str]]:
    """Return the file, the function and the code of each quotation; code follows its place."""
    found = []
    for section in SECTIONS.values():
        places = [*PLACE.finditer(section)]
        ends = [*(place.start() for place in places), len(section)]
        for place, (start, end) in zip(places, pairwise(ends), strict=True):
            found += [(place[1], place[2], code) for code in CODE.findall(section[start:end])]
    assert len(found) == READING.count("```python")
    return found


@pytest.mark.parametrize(("file", "path", "code"), quotations())
def test_quoted_code_is_in_the_function_that_is_named(file: str, path: str, code: str) -> None:
    assert contains(source_of(file, path), code)


def test_code_that_changed_is_found() -> None:
    source = source_of("minibert/model/encoder.py", "Block.forward")
    (code,) = CODE.findall(SECTIONS["The norm comes after the sum"])
    assert contains(source, code)
    assert not contains(source, code.replace("x + attended", "attended"))
    assert not contains(source, "\n".join(reversed(code.splitlines())))


@pytest.mark.parametrize("title", SECTIONS)
def test_each_section_names_one_test_that_exists(title: str) -> None:
    (named,) = re.findall(r"^Test: .*$", SECTIONS[title], flags=re.MULTILINE)
    match = TEST.search(named)
    assert match is not None
    source = (ROOT / "tests" / match[1]).read_text(encoding="utf-8")
    assert re.search(rf"^def {match[2]}\(", source, re.MULTILINE)


@pytest.mark.parametrize("row", re.findall(r"^\| .*`test_.* \|$", CLAIMS, re.MULTILINE))
def test_each_claim_has_a_test_that_exists_and_an_error_below_its_tolerance(row: str) -> None:
    _, test, allowed, found = row.strip("| ").split(" | ")
    match = TEST.search(test)
    assert match is not None
    assert f"def {match[2]}(" in (ROOT / "tests" / match[1]).read_text(encoding="utf-8")
    assert f"tests/{match[1]}" in CLAIMS  # the command runs it
    assert float(found) <= float(allowed.split(", ")[1])


def test_the_largest_error_of_a_test_is_measured(request: pytest.FixtureRequest) -> None:
    plugin = LargestErrors()
    call = plugin.pytest_runtest_call(request.node)
    next(call)
    for expected in (2.25, 2.125):
        torch.testing.assert_close(torch.tensor([1.0, 2.0]), torch.tensor([1.0, expected]), **LOOSE)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(torch.tensor(1.0), torch.tensor(9.0), **LOOSE)
    next(call, None)
    assert plugin.errors == {f"test_reading.py::{request.node.name}": (0.25, 0.0, 1.0)}
