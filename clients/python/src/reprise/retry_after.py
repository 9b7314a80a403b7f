"""Reads when a target wants to be called again from what it answered.

Nothing is imported from the packages whose answers are read: headers are anything
with `get`, and names are looked for in the case that each package keeps.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

# Decimals are beyond the letter of HTTP, and some targets send them.
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)


def retry_after(value: str, *, date: str | None = None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks to wait. None for one that says nothing.

    A date is counted from `date`, the answer's own Date header, so that the clocks of
    target and worker need not agree; without one from `now`, the time by default. One
    that is past means at once.
    """
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    until = _instant(text)
    if until is None:
        return None
    since = (_instant(date) if date else None) or now or datetime.now(timezone.utc)
    return max(0.0, (until - since).total_seconds())


def of_headers(headers: Any, *, now: datetime | None = None) -> float | None:
    """Seconds that the headers of an answer ask to wait. None when they do not ask."""
    millis = _header(headers, "retry-after-ms") or _header(headers, "x-ms-retry-after-ms")
    if millis and _SECONDS.fullmatch(millis.strip()):
        return float(millis) / 1000
    value = _header(headers, "Retry-After")
    return None if value is None else retry_after(value, date=_header(headers, "Date"), now=now)


def _instant(text: str) -> datetime | None:
    """An HTTP date in any of its three forms."""
    try:
        instant = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # A date without a zone is in UTC: that is what the oldest form means.
    return instant.replace(tzinfo=timezone.utc) if instant.tzinfo is None else instant


def _header(headers: Any, name: str) -> str | None:
    get = getattr(headers, "get", None)
    if get is None:
        return None
    for spelling in (name, name.lower()):
        value = get(spelling)
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
    return None
