"""Declare how current serving is."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import model_validator

from featreg.define.layers import MEANING
from featreg.define.model import Fault, Model, SpecError, coerced
from featreg.define.source import read_duration_text
from featreg.instants import Cadence, parse_duration


class Realtime(Model):
    """Serving knows every row that could be read before the as-of instant."""

    @property
    def cadence(self) -> Cadence:
        return Cadence()


class Every(Model):
    """Serving learns in runs at `offset + k * period` (UTC), each served `delay` after it."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("period", "offset", "delay")

    period: Annotated[str, coerced(read_duration_text), MEANING]
    offset: Annotated[str, coerced(read_duration_text), MEANING] = "0h"
    delay: Annotated[str, coerced(read_duration_text), MEANING] = "0h"

    if TYPE_CHECKING:

        def __init__(self, period: str, offset: str = "0h", delay: str = "0h") -> None: ...

    @model_validator(mode="after")
    def _check_period(self) -> "Every":
        if parse_duration(self.period) == 0:
            raise SpecError([Fault(f"period='{self.period}' is no time at all. Write REALTIME for no runs.")])
        return self

    @property
    def cadence(self) -> Cadence:
        """Offsets that differ by whole periods are one cadence, so the offset is brought below the period."""
        period = parse_duration(self.period)
        return Cadence(period, parse_duration(self.offset) % period, parse_duration(self.delay))


REALTIME = Realtime()
