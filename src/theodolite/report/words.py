"""Numbers in plain words: powers of ten, shares, durations, with typographic minus signs."""

import math

LN10 = math.log(10.0)
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_MINUS = "\N{MINUS SIGN}"
_MISSING = "\N{EN DASH}"


def power(base: str, exponent: int) -> str:
    """A power with a raised exponent: `power("10", -7)` is 10⁻⁷."""
    return base + str(exponent).translate(_SUPERSCRIPTS)


def number(value: float, digits: int = 3) -> str:
    """A number to `digits` significant digits (all digits left of the point are kept); a dash for NaN."""
    if math.isnan(value):
        return _MISSING
    if math.isinf(value):
        return ("" if value > 0 else _MINUS) + "∞"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 11:
        mantissa = f"{value / 10.0**size:.{max(digits - 1, 0)}f}" if size > -300 else "0"
        return f"{mantissa} × {power('10', size)}".replace("-", _MINUS)
    return f"{value:,.{max(digits - 1 - size, 0)}f}".replace("-", _MINUS)


def tidy(value: float, digits: int = 3) -> str:
    """As `number`, without the zeros that end a decimal: 32 rather than 32.0."""
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def fixed(value: float, decimals: int) -> str:
    """A number with a fixed count of decimals, for columns; a dash for NaN, a typographic minus."""
    if math.isnan(value):
        return _MISSING
    if math.isinf(value):
        return ("" if value > 0 else _MINUS) + "∞"
    text = f"{value:,.{decimals}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", _MINUS)


def decimals_for(spacing: float) -> int:
    """Decimals that tell levels `spacing` apart from each other."""
    return 0 if not spacing > 0 else max(0, min(6, 1 - math.floor(math.log10(spacing))))


def size(log_count: float) -> str:
    """A count from its natural logarithm: 1,234 while it can be read, then a power of ten."""
    if math.isnan(log_count):
        return _MISSING
    if log_count == -math.inf:
        return "none"
    if log_count < math.log(1e6):
        return f"{round(math.exp(log_count)):,}" if log_count > math.log(99.5) else tidy(math.exp(log_count))
    return power("10", round(log_count / LN10))


def share(log_fraction: float) -> str:
    """A share from its natural logarithm: a percentage, `one in 1,200` or `one in 10⁵⁹¹`."""
    if math.isnan(log_fraction):
        return _MISSING
    if log_fraction == -math.inf:
        return "none"
    if log_fraction > math.log(0.01):
        return f"{number(100 * math.exp(min(log_fraction, 0.0)), 2)}%"
    if log_fraction > -math.log(1e6):
        return f"one in {number(float(f'{math.exp(-log_fraction):.2g}'), 1)}"
    return f"one in {power('10', round(-log_fraction / LN10))}"


def probability(log_odds: float) -> str:
    """The probability that log-odds mean, told apart from 0 and 1: 10⁻³⁸, 0.27, 1 − 10⁻⁸."""
    if math.isnan(log_odds):
        return _MISSING
    tail = -math.log1p(math.exp(-abs(log_odds)))
    small = -abs(log_odds) + tail
    if small > math.log(1e-3):
        return number(math.exp(small) if log_odds < 0 else math.exp(tail), 2 if log_odds < 0 else 3)
    raised = power("10", round(small / LN10))
    return raised if log_odds < 0 else f"1 {_MINUS} {raised}"


def duration(seconds: float) -> str:
    """A time a person would say: 48 s, 4 min 12 s, 3 h 5 min."""
    if math.isnan(seconds):
        return _MISSING
    if seconds < 60:
        return f"{number(seconds, 2)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listing(names: list[str]) -> str:
    """A list as a phrase: a, b and c."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""
