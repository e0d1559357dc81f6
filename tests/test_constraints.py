"""constraints.txt holds every package that an installation with the extras brings, at one version.

Run: pytest tests/test_constraints.py
"""

import re
from importlib import metadata

import pytest
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# PyTorch's own for its build with CUDA; which of them depends on that build.
FOR_CUDA = re.compile(r"nvidia-|triton|cuda-")


def pinned() -> dict[str, str]:
    lines = (line.partition(";")[0] for line in (ROOT / "constraints.txt").read_text().splitlines())
    pins = [line.strip().split("==") for line in lines if line.strip() and line[0] != "#"]
    return {canonicalize_name(name): version for name, version in pins}


def closure(wanted: list[str]) -> dict[str, str]:
    """Every installed distribution that these requirements bring, and its version."""
    found: dict[str, str] = {}
    open_ends = [(Requirement(text), "") for text in wanted]
    seen = set()
    while open_ends:
        requirement, extra = open_ends.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        distribution = metadata.distribution(name)
        found[name] = distribution.version
        for extra in {"", *requirement.extras} - {part for key, part in seen if key == name}:
            seen.add((name, extra))
            open_ends += [(Requirement(text), extra) for text in distribution.requires or []]
    return found


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_all_that_is_installed_for_an_extra_is_pinned(extra: str) -> None:
    try:
        found = closure(EXTRAS[extra] if extra else PROJECT["dependencies"])
    except metadata.PackageNotFoundError as missing:
        pytest.skip(f"the extra {extra} is not installed whole: {missing.name}")
    assert found
    pins = pinned()
    lacking = {name for name in found if name not in pins and not FOR_CUDA.match(name)}
    assert not lacking, f"constraints.txt does not pin {sorted(lacking)}"


def test_every_line_is_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    exact = re.compile(r"[\w.-]+==[\w.]+( ; python_version >= \"3\.\d+\")?")
    assert [line for line in lines if line[:1] != "#" and not exact.fullmatch(line)] == []
    assert len(pinned()) == sum(line[:1] != "#" for line in lines)
