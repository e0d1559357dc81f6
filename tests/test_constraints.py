"""constraints.txt pins every package that an installation with the extras brings.

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
# The packages of PyTorch's CUDA build, which depend on the version of CUDA.
FOR_CUDA = re.compile(r"nvidia-|triton|cuda-")


def pinned() -> dict[str, str]:
    """Return the version of each package in constraints.txt."""
    lines = (line.partition(";")[0] for line in (ROOT / "constraints.txt").read_text().splitlines())
    pins = [line.strip().split("==") for line in lines if line.strip() and line[0] != "#"]
    return {canonicalize_name(name): version for name, version in pins}


def installed_for(requirements: list[str]) -> dict[str, str]:
    """Return every installed package that these requirements bring, and its version."""
    found: dict[str, str] = {}
    queue = [(Requirement(text), "") for text in requirements]
    seen = set()
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        distribution = metadata.distribution(name)
        found[name] = distribution.version
        for extra in {"", *requirement.extras} - {known for key, known in seen if key == name}:
            seen.add((name, extra))
            queue += [(Requirement(text), extra) for text in distribution.requires or []]
    return found


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_every_package_of_an_extra_is_pinned(extra: str) -> None:
    try:
        found = installed_for(EXTRAS[extra] if extra else PROJECT["dependencies"])
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"the extra {extra} is not completely installed: {error.name}")
    assert found
    pins = pinned()
    missing = {name for name in found if name not in pins and not FOR_CUDA.match(name)}
    assert not missing, f"constraints.txt does not pin {sorted(missing)}"


def test_every_line_is_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    exact = re.compile(r"[\w.-]+==[\w.]+( ; python_version >= \"3\.\d+\")?")
    assert [line for line in lines if line[:1] != "#" and not exact.fullmatch(line)] == []
    assert len(pinned()) == sum(line[:1] != "#" for line in lines)


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_the_pins_are_within_the_bounds_of_pyproject(extra: str) -> None:
    pins = pinned()
    for text in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text
