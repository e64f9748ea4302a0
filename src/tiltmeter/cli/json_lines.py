"""Results as JSON lines: an object a line, numbers as numbers, null where nothing was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def json_line(values: Mapping[str, Any]) -> str:
    """An object in one line; what is no finite number is null."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def of_csv(rows: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The rows of a CSV file, with numbers where a column holds nothing but numbers; an empty cell is None."""
    kept = [dict(row) for row in rows]
    numbers = [key for key in (kept[0] if kept else {}) if all(_is_number(row[key]) for row in kept)]
    return [{key: _number(value) if key in numbers else value for key, value in row.items()} for row in kept]


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _number(text: str) -> float | int | None:
    if not text:
        return None
    return int(text) if text.lstrip("-").isdigit() else float(text)
