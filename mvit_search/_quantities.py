"""Numbers as people write them: `6M`, `1.2G`, `5ms`, `30m`; and back."""

import re

from mvit_search.errors import InputError

_COUNT: dict[str, float] = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_MILLISECONDS: dict[str, float] = {"": 1, "ms": 1, "us": 1e-3, "s": 1e3}
_SECONDS: dict[str, float] = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_BYTES: dict[str, float] = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 1e3, "mb": 1e6, "gb": 1e9}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_count(text: str, field: str) -> int:
    """`6M` -> 6_000_000. Used for parameters and MACs; must be above zero."""
    return round(_parse(text, field, _COUNT, "6M or 2500000", smallest=1))


def parse_milliseconds(text: str, field: str) -> float:
    """`5ms` -> 5.0; must be above zero."""
    return _parse(text, field, _MILLISECONDS, "5ms or 7.5")


def parse_seconds(text: str, field: str) -> float:
    """`30m` -> 1800.0; must be above zero."""
    return _parse(text, field, _SECONDS, "30m, 90s or 2h")


def parse_bytes(text: str, field: str) -> int:
    """`200MiB` -> 209_715_200; must be above zero."""
    return round(_parse(text, field, _BYTES, "200MiB or 50000000", smallest=1))


def format_count(number: float) -> str:
    """1_272_024 -> `1.27M`."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 0.9995 so that 999_999 becomes 1.00M and not 1000k.
        if abs(number) >= 0.9995 * limit:
            return f"{number / limit:.3g}{suffix}" if abs(number) >= 100 * limit else f"{number / limit:.2f}{suffix}"
    return f"{number:.0f}"


def format_bytes(number: float) -> str:
    """4_194_304 -> `4.00 MiB`."""
    for limit, suffix in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(number) >= limit:
            return f"{number / limit:.2f} {suffix}"
    return f"{number:.0f} B"


def format_seconds(number: float) -> str:
    """95 -> `1m35s`."""
    whole = round(number)
    hours, rest = divmod(whole, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def _parse(text: str, field: str, units: dict[str, float], example: str, smallest: float = 0.0) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise InputError(field, text, "is not a number above zero", f"write it like {example}")
    unit = match[2].lower()
    if unit not in units:
        known = ", ".join(u for u in units if u)
        raise InputError(field, text, f"has the unknown unit {match[2]!r} (known: {known})", f"write it like {example}")
    value = float(match[1]) * units[unit]
    if not smallest <= value < 1e18 or value == 0:
        least = f"at least {smallest:g}" if smallest else "above zero"
        raise InputError(field, text, f"must be {least} and below 1e18", f"write it like {example}")
    return value
