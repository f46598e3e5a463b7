"""The list of aggregations: what each takes and gives, and which partial holds it.

Read this first.  A partial's `fold`, `merge` and `finalize` are in the module that
`kind` names; several aggregations share one partial (count, sum and avg of a column
are one sum), and each is one line here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from featreg.vocabulary import BIGINT, BOOLEAN, DOUBLE, DataType, decimal, list_of, map_of


@dataclass(frozen=True)
class Aggregation:
    """One aggregation.

    kind: the partial, by the module of this package.  output: result type by input type (None: no input).
    empty: what an empty window gives.  ordered: whether ties are broken by the tie order.
    newest: follows for every trailing window from one partial per key, so it keeps no tiles.
    """

    name: str
    kind: str
    inputs: str
    output: Callable[[DataType | None], DataType]
    empty: int | None = None
    ordered: bool = False
    newest: bool = False

    def takes(self, data_type: DataType) -> bool:
        match self.inputs:
            case "numbers":
                return data_type.is_numeric
            case "booleans":
                return data_type == BOOLEAN
        return True

    @property
    def input_words(self) -> str:
        return {"numbers": "a number", "booleans": "a BOOLEAN"}.get(self.inputs, "any type")

    @property
    def hint(self) -> str:
        return "Cast it, as in 'x::DOUBLE'." if self.inputs == "numbers" else "Write a comparison, as in 'x > 0'."


def _same(data_type: DataType | None) -> DataType:
    assert data_type is not None
    return data_type


def _list(data_type: DataType | None) -> DataType:
    return list_of(_same(data_type))


def _sum(data_type: DataType | None) -> DataType:
    assert data_type is not None
    return decimal(38, data_type.scale) if data_type.name == "DECIMAL" else data_type


def _always(data_type: DataType) -> Callable[[DataType | None], DataType]:
    return lambda _: data_type


AGGREGATIONS: dict[str, Aggregation] = {
    aggregation.name: aggregation
    for aggregation in (
        Aggregation("count", "counts", "any", _always(BIGINT), empty=0),
        Aggregation("sum", "sums", "numbers", _sum),
        Aggregation("avg", "sums", "numbers", _always(DOUBLE)),
        Aggregation("min", "extremes", "any", _same),
        Aggregation("max", "extremes", "any", _same),
        Aggregation("var", "moments", "numbers", _always(DOUBLE)),
        Aggregation("stddev", "moments", "numbers", _always(DOUBLE)),
        Aggregation("any", "extremes", "booleans", _same),
        Aggregation("all", "extremes", "booleans", _same),
        Aggregation("count_distinct", "tally", "any", _always(BIGINT), empty=0, newest=True),
        Aggregation("first", "ranked", "any", _same, ordered=True),
        Aggregation("last", "ranked", "any", _same, ordered=True, newest=True),
        Aggregation("first_n", "ranked", "any", _list, ordered=True),
        Aggregation("last_n", "ranked", "any", _list, ordered=True, newest=True),
        Aggregation("top_n", "ranked", "any", _list),
        Aggregation("arg_min", "ranked", "any", _same, ordered=True),
        Aggregation("arg_max", "ranked", "any", _same, ordered=True),
        Aggregation("histogram", "tally", "any", lambda data_type: map_of(_same(data_type))),
    )
}
