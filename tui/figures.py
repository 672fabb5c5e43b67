"""Numbers as the screen writes them: short, and of a steady width."""

import math
from datetime import datetime


def count_text(count: float) -> str:
    """A count with a suffix: 412, 5.9k, 1.7M, 2.1B."""
    if not math.isfinite(count):
        return "–"
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        # 999_950 would round to "1000.0k".
        if abs(count) >= size * 0.99995:
            scaled = count / size
            return f"{scaled:.0f}{suffix}" if abs(scaled) >= 100 else f"{scaled:.1f}{suffix}"
    return f"{count:.0f}"


def count_from(text: str) -> int | None:
    """The count that someone typed: 300k, 1.5M, 2e6, 1_000; None where it is none."""
    factor = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}.get(text[-1:].lower(), 1.0)
    try:
        count = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        return None
    return round(count) if 0 <= count < 1e18 else None


def duration_text(seconds: float) -> str:
    """A span of time: 0:09, 3:10, 2:05:00, 3 d 4 h."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    whole = int(seconds)
    if whole >= 2 * 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    minutes, rest = divmod(whole, 60)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


def span_text(seconds: float) -> str:
    """A span of time that is only known about: 20 s, 4 min, 3 h 20, 2 d 5 h."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest:02}" if rest else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def bytes_text(size_bytes: float) -> str:
    """A size: 41 kB, 820 MB, 1.1 GB, 79 GB."""
    for size, unit in ((1e12, "TB"), (1e9, "GB")):
        if size_bytes >= size:
            scaled = size_bytes / size
            return f"{scaled:.0f} {unit}" if scaled >= 10 else f"{scaled:.1f} {unit}"
    # 999_500 would round to "1000 kB".
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 999_500 else f"{size_bytes / 1e3:.0f} kB"


def rate_text(rate: float) -> str:
    """A learning rate: 1.2e-3, 6e-4."""
    if not math.isfinite(rate) or rate == 0:
        return f"{rate:g}"
    exponent = math.floor(math.log10(abs(rate)))
    mantissa = f"{rate / 10**exponent:.2f}".rstrip("0").rstrip(".")
    if mantissa == "10":
        mantissa, exponent = "1", exponent + 1
    return f"{mantissa}e{exponent}"


def loss_text(loss: float) -> str:
    """A loss to three places; the three values that are no numbers keep their names."""
    return f"{loss:.3f}" if math.isfinite(loss) and abs(loss) < 1e4 else f"{loss:.3g}"


def change_text(now: float, before: float) -> str:
    """How a value moved since the last time: ▾0.031, ▴0.004, or ▪0.000."""
    change = now - before
    if not math.isfinite(change):
        return ""
    glyph = "▪" if abs(change) < 0.0005 else ("▾" if change < 0 else "▴")
    return f"{glyph}{loss_text(abs(change))}"


def local_time_text(instant: str) -> str:
    """An ISO instant as the clock on the wall says it: `11-22 17:05`."""
    try:
        return datetime.fromisoformat(instant).astimezone().strftime("%m-%d %H:%M")
    except ValueError:
        return ""
