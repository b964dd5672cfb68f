"""What a rule says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Something that the user should look at.

    Attributes:
        kind: Name of the rule.
        level: `error`, `warning` or `info`.
        text: What is the matter.
        evidence: The numbers behind it.
        remedy: What to do, with the key that does it where there is one.
    """

    kind: str
    level: str
    text: str
    evidence: str
    remedy: str
