"""What serving answers, without what computes it: a client needs no kernels."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow as pa

STATUSES = ("missing", "error", "stale", "empty", "ok")  # of several, the first


@dataclass(slots=True)
class Vector:
    """One answer.  values, status: by feature in declared order · cutoff, watermark: by view, UTC microseconds (None: not materialized)."""

    values: dict[str, Any]
    status: dict[str, str]
    cutoff: dict[str, int | None]
    watermark: dict[str, int | None]


class Vectors(Sequence[Vector]):
    """The answers for many rows, in the order in which they were asked: a sequence of vectors, and columns for a model.

    What is answered was fixed by the read.  `Vector`s are made, all at once, when one of them is looked at; columns need none of them.
    """

    _made: list[Vector] | None = None

    @abstractmethod
    def to_arrow(self) -> "pa.Table":
        """The values: a column for each feature in declared order, a row for each that was asked; null where there is none."""

    @abstractmethod
    def status_to_arrow(self) -> "pa.Table":
        """The statuses, in the columns and rows of `to_arrow`: texts in a dictionary."""

    def to_pandas(self) -> "pandas.DataFrame":
        return self.to_arrow().to_pandas()

    def to_polars(self) -> "polars.DataFrame":
        import polars

        return polars.from_arrow(self.to_arrow())  # type: ignore[return-value]

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    @abstractmethod
    def _make(self) -> list[Vector]:
        """Every vector, in order; asked for once."""

    @abstractmethod
    def _some(self, rows: slice) -> "Vectors":
        """Those of some rows."""

    def _vectors(self) -> list[Vector]:
        if self._made is None:
            self._made = self._make()
        return self._made

    @overload
    def __getitem__(self, place: int) -> Vector: ...
    @overload
    def __getitem__(self, place: slice) -> "Vectors": ...
    def __getitem__(self, place: int | slice) -> "Vector | Vectors":
        return self._some(place) if isinstance(place, slice) else self._vectors()[place]

    def __iter__(self) -> Iterator[Vector]:
        return iter(self._vectors())

    def __eq__(self, other: object) -> bool:
        return self._vectors() == list(other) if isinstance(other, (list, Vectors)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Sequence[Vector]) -> list[Vector]:
        return [*self, *other]

    def __radd__(self, other: Sequence[Vector]) -> list[Vector]:
        return [*other, *self]

    def __repr__(self) -> str:
        return repr(self._vectors())
