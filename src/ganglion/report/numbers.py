"""Numbers as people read them: three significant digits, units, SI prefixes; a dash for nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

DASH = "–"
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def finite(value: Any) -> float | None:
    """Return `value` as a float, or None where it is no finite number (None, NaN, a text)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: Any, digits: int = 3) -> str:
    """Write a number with `digits` significant digits: 0.00312, 5.31, 1,234, 3.1e-7."""
    x = finite(value)
    if x is None:
        return DASH
    size = abs(x)
    if x == 0:
        return "0"
    if 1e-4 <= size < 1e6:
        places = max(0, digits - 1 - math.floor(math.log10(size)))
        text = f"{x:,.{places}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def unit_of(entry: Mapping[str, Any]) -> str:
    """Return the unit to show for a metric or figure: "%" where people read it as a percentage."""
    return "%" if entry.get("percent") else str(entry.get("unit") or "1")


def scaled(value: Any, unit: str) -> float | None:
    """Return the number to show: unit "%" is a fraction and shown x 100."""
    x = finite(value)
    return x if x is None or unit != "%" else 100 * x


def digits_for(value: Any, low: Any, high: Any, unit: str) -> int:
    """Return how many digits keep the bounds apart and 99.97 % from reading 100 %; 3 to 6."""
    numbers = [scaled(v, unit) for v in (value, low, high)]
    known = [x for x in numbers if x is not None]
    for digits in (3, 4, 5):
        texts = {x: number(x, digits) for x in known}
        whole = unit == "%" and any(t == "100" and x != 100 for x, t in texts.items())
        low_x, high_x = numbers[1], numbers[2]
        close = low_x is not None and high_x is not None and low_x != high_x
        if not whole and not (close and texts[low_x] == texts[high_x]):  # type: ignore[index]
            return digits
    return 6


def quantity(value: Any, unit: str = "1", digits: int = 3) -> str:
    """Write a metric's value with its unit: "0.6 %" for (0.006, "%"), "0.006" for (0.006, "1")."""
    text = number(scaled(value, unit), digits)
    return text if unit in ("1", "") or text == DASH else f"{text} {unit}"


def estimate(entry: Any, *, with_unit: bool = True) -> str:
    """Write {"value", "low", "high", "unit"} as "0.612 % [0.58, 0.64]"; a dash where unknown."""
    if not hasattr(entry, "get"):
        return DASH
    unit = unit_of(entry)
    unit = unit if with_unit or unit == "%" else "1"
    digits = digits_for(entry.get("value"), entry.get("low"), entry.get("high"), unit)
    text = number(scaled(entry.get("value"), unit), digits)
    if with_unit and unit != "1" and text != DASH:
        text += f" {unit}"
    bounds = bounds_of(entry)
    return f"{text} {bounds}" if bounds else text


def bounds_of(entry: Any) -> str:
    """Write the interval "[low, high]" of an estimate without its unit; "" where there is none."""
    unit = str(entry.get("unit") or "1")
    low, high = scaled(entry.get("low"), unit), scaled(entry.get("high"), unit)
    if low is None or high is None or scaled(entry.get("value"), unit) is None:
        return ""
    digits = digits_for(entry.get("value"), entry.get("low"), entry.get("high"), unit)
    return f"[{number(low, digits)}, {number(high, digits)}]"


def _prefixed(value: float, unit: str) -> str:
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor * 0.9995:
            return f"{number(value / factor)} {prefix}{unit}"
    return f"{number(value)} {unit}".strip()


def size(value: Any) -> str:
    """Write bytes with a decimal SI prefix: 2.1 MB."""
    x = finite(value)
    return DASH if x is None else _prefixed(x, "B")


def count(value: Any) -> str:
    """Write a count in full up to a million (530,123), above it with a prefix (50 M)."""
    x = finite(value)
    if x is None:
        return DASH
    return f"{x:,.0f}" if abs(x) < 1e6 else _prefixed(x, "").strip()


def latency(microseconds: Any) -> str:
    """Write a latency given in microseconds: 48.2 µs, 5 ms, 1.2 s."""
    x = finite(microseconds)
    if x is None:
        return DASH
    for factor, unit in ((1e6, "s"), (1e3, "ms")):
        if abs(x) >= factor * 0.9995:
            return f"{number(x / factor)} {unit}"
    return f"{number(x)} µs"


def duration(seconds: Any) -> str:
    """Write a duration given in seconds: 850 ms, 42.1 s, 12 min 5 s, 3 h 20 min."""
    x = finite(seconds)
    if x is None:
        return DASH
    if x < 1:
        return f"{number(1000 * x)} ms"
    if x < 60:
        return f"{number(x)} s"
    whole = round(x)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def moment(value: Any) -> str:
    """Write a time given as ISO text or as seconds since 1970: 2026-01-31 23:59 UTC."""
    x = finite(value)
    if x is not None:
        try:
            return datetime.fromtimestamp(x, UTC).strftime("%Y-%m-%d %H:%M UTC")
        except (OverflowError, ValueError, OSError):
            return DASH
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError:
        return plain(value)
    zone = " UTC" if read.utcoffset() == timedelta(0) else ""
    return read.strftime("%Y-%m-%d %H:%M") + (zone or read.strftime(" %z")).rstrip()


def plain(value: Any, limit: int = 160) -> str:
    """Write any JSON value on one line: numbers short, long lists and texts cut with a count."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return number(value, 4)
    if isinstance(value, list | tuple):
        shown = ", ".join(plain(v, 40) for v in value[:8])
        return f"[{shown}, … {len(value)} in all]" if len(value) > 8 else f"[{shown}]"
    if hasattr(value, "items"):
        return ", ".join(f"{k}={plain(v, 40)}" for k, v in value.items()) or DASH
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
