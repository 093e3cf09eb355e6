"""Names of runs, models and jobs: a word a person knows, and a digest of what went in."""

import re
from typing import Any

from workers.contract.layout import settings_digest
from workers.storage import absolute


def named(source: str, **content: Any) -> str:
    """For example "flowers-3f9a2c1b04de": the same source and content give the same name, so the
    same command finds what it left, and a changed one makes something new."""
    last = absolute(source).rstrip("/").rpartition("/")[2].lower()
    stem = re.sub(r"\.(csv|parquet)$", "", last)
    word = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:32] or "images"
    return f"{word}-{settings_digest(content)}"
