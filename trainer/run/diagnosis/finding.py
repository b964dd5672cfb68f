"""The result of a rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A problem that the user should look at.

    Attributes:
        kind: Name of the rule.
        level: `error`, `warning` or `info`.
        text: The problem.
        evidence: The numbers behind it.
        remedy: What to do, with its key where there is one.
    """

    kind: str
    level: str
    text: str
    evidence: str
    remedy: str
