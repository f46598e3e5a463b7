"""Say parts of a definition in words, as a SQL header or a plan shows them."""

from featreg.define import EventSource
from featreg.define.source import LOG
from featreg.instants import EXACT, Cadence, format_duration


def freshness_text(cadence: Cadence) -> str:
    """As in a SQL header: `realtime`, or `every 1d offset 5h delay 2h`."""
    if cadence.is_realtime:
        return "realtime"
    offset = f" offset {format_duration(cadence.offset)}" if cadence.offset else ""
    delay = f" delay {format_duration(cadence.delay)}" if cadence.delay else ""
    return f"every {format_duration(cadence.period)}{offset}{delay}"


def available_text(source: EventSource) -> str:
    """When a row can first be read, in words."""
    if source.arrives:
        return "when it arrives"
    if source.available_column is not None:
        return f"from {source.available_column}"
    return f"{format_duration(source.delay_micros)} after {source.event_time}" if source.delay_micros else "at once"


def stream_text(source: EventSource) -> str:
    """How pushed rows and files meet, in words; empty for a source that says nothing of it."""
    if source.stream_mode is None:
        return ""
    return "the push log, after files" if source.stream_mode == LOG else "pushed rows until a batch covers them"


def window_text(window: int | None) -> str:
    return "all of history" if window is None else format_duration(window)


def hop_text(hop: int | None) -> str:
    return "none" if hop is None else "exact" if hop == EXACT else format_duration(hop)
