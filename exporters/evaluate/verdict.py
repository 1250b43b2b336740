"""Whether a variant may ship, as values: ``gates.py`` judges. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One question to a comparison, answered."""

    name: str  # "accuracy", "labels", or a metric of the tolerance table
    passed: bool
    value: float  # what was found: upper bound in points, smallest adjusted p, a difference
    limit: float  # what it was held against
    text: str  # in plain words, with the numbers


@dataclass(frozen=True)
class Verdict:
    """Whether a variant may ship, and why."""

    passed: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The texts of all checks, the failed ones first."""
        return tuple(c.text for c in sorted(self.checks, key=lambda check: check.passed))

    @property
    def failures(self) -> tuple[str, ...]:
        """The texts of the failed checks."""
        return tuple(check.text for check in self.checks if not check.passed)
