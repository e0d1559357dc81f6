"""A plugin of pytest: the largest difference that each test found within its tolerance.

It prints what docs/claims.md lists: pytest FILE ... --largest-errors
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch


class LargestErrors:
    """Measures what `torch.testing.assert_close` compares; a table comes at the end."""

    def __init__(self) -> None:
        self.errors: dict[str, tuple[float, float, float]] = {}  # test: error, rtol, atol

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Function) -> Iterator[None]:
        """Measure in one test. Its parameters share a row."""
        test = f"{item.path.name}::{item.originalname}"
        check = torch.testing.assert_close

        def measured(actual: Any, expected: Any, **options: Any) -> None:
            check(actual, expected, **options)
            one, other = (torch.as_tensor(x).detach().double() for x in (actual, expected))
            error = (one - other).abs().max().item() if one.numel() else 0.0
            rtol, atol = options.get("rtol", 1.3e-6), options.get("atol", 1e-5)
            self.errors[test] = max(self.errors.get(test, (0.0, 0.0, 0.0)), (error, rtol, atol))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.testing, "assert_close", measured)
            yield

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print a line for each test that compared tensors."""
        terminalreporter.section("largest errors")
        for test, (error, rtol, atol) in self.errors.items():
            terminalreporter.write_line(f"{error:.1e}  (rtol {rtol:g}, atol {atol:g})  {test}")
