"""What `diagnose` may find, as `diagnosis/findings.md` describes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent / "diagnosis/findings.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """`seen`: what people say who have it. `told`: what tells it from other findings. `do`: what to
    do, and `code` how, in up to four lines. `sources`: one a line."""

    seen: str
    cause: str
    told: str
    do: str
    code: str
    sources: str


def _read(page: str) -> dict[str, Known]:
    """The sections of the page: paragraphs that begin with the name of a part, and code."""
    found = {}
    for section in page.split("\n## ")[1:]:
        name, text = section.split("\n", 1)
        (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        parts = re.findall(r"^\*\*(\w+):\*\* (.*?)\n(?:\n|\Z)", text, re.DOTALL | re.MULTILINE)
        words = {part.lower(): " ".join(said.split()) for part, said in parts}
        words["sources"] = words["sources"].replace("; ", "\n")
        found[name] = Known(code=code, **words)
    return found


FINDINGS: Mapping[str, Known] = _read(PAGE.read_text(encoding="utf-8"))
"""By name; in this order where nothing else decides: causes before what they lead to."""
