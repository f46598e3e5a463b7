"""Claims about finish programs: the compiled loop gives what the DuckDB text and the rules give, bit for bit."""

import math
import random
from datetime import datetime
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featreg.expressions import ExpressionError, FinishProgram, Typed, analyze, compile_finish, duckdb_overflow, duckdb_text, run_finish
from featreg.vocabulary import BIGINT, BOOLEAN, DATE, DOUBLE, TIMESTAMP, VARCHAR, DataType, parse_type
from tests.expression_rules import Row, Writer, random_row
from tests.test_expressions import TYPES, arrow_rows, column_text, comparable, connect, expected

ERROR = "overflow"


def run(outputs: list[tuple[str, Typed]], types: dict[str, DataType], rows: list[Row]) -> list[list[object]]:
    """What the loop answers: per output, per row; a DECIMAL as `Fraction`, a DATE or TIMESTAMP as its number."""
    names = [*types, *(name for name, _ in outputs)]
    slots = {name: number for number, name in enumerate(names)}
    program = compile_finish(outputs, slots)
    texts = {text: -1 - number for number, text in enumerate(program.strings)}
    words, valid = np.zeros((len(names), len(rows)), np.int64), np.zeros((len(names), len(rows)), np.uint8)
    for name, kind in types.items():
        for at, row in enumerate(rows):
            if row[name] is not None:
                valid[slots[name], at] = 1
                words[slots[name], at] = word_of(row[name], kind, texts)
    run_finish(*program.arrays, words, valid, 0, len(rows))
    return [
        [cell_of(words[slots[name], at], valid[slots[name], at], typed.type, texts) for at in range(len(rows))] for name, typed in outputs
    ]


def word_of(value: object, kind: DataType, texts: dict[str, int]) -> int:
    match value:
        case float():
            return int(np.float64(value + 0.0).view(np.int64))
        case str():
            return texts.setdefault(value, len(texts))
        case Fraction():
            return int(value * 10**kind.scale)
    return int(value)  # type: ignore[call-overload]


def cell_of(word: np.int64, valid: int, kind: DataType, texts: dict[str, int]) -> object:
    if valid != 1:
        assert word == 0
        return ERROR if valid == 2 else None
    match kind.name:
        case "DOUBLE":
            value = float(word.view(np.float64))
            assert not math.isnan(value) or int(word) == 0x7FF8 << 48, "the one quiet NaN"
            return value
        case "BOOLEAN":
            return bool(word)
        case "DECIMAL":
            return Fraction(int(word), 10**kind.scale)
        case "VARCHAR":
            return next(text for text, code in texts.items() if code == word)
    return int(word)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 48))
def test_the_loop_gives_what_the_rules_and_duckdb_give(seed: int) -> None:
    """On NULL, NaN, infinities, -0.0, extremes and leap days three witnesses agree to the bit, errors included."""
    rnd = random.Random(seed)
    writer = Writer(rnd, finish=True)
    made = [writer.any(rnd.randint(1, 4)) for _ in range(6)]
    rows = [random_row(rnd) for _ in range(12)]
    outputs = [(f"out{number}", analyze(expression.text, TYPES)) for number, expression in enumerate(made)]
    connection = connect()
    connection.register("r", arrow_rows(rows))
    for expression, (_, typed), cells in zip(made, outputs, run(outputs, TYPES, rows), strict=True):
        found = [comparable(cell) for cell in cells]
        assert found == [expected(expression, row) for row in rows], expression.text
        text, overflow = duckdb_text(typed, column_text), duckdb_overflow(typed, column_text) or "FALSE"
        told = connection.execute(f"SELECT {text}, {overflow} FROM r").fetchall()
        assert found == [ERROR if overflows else comparable(value) for value, overflows in told], (expression.text, text)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1 << 48),
    operation=st.sampled_from(
        ("exp(x / 100)", "ln(x)", "power(x, y)", "sqrt(x)", "round(x, 2)", "x % y", "x // y", "x / y", "round(x * 1e10, -3)")
    ),
)
def test_the_math_library_is_the_same(seed: int, operation: str) -> None:
    """numba and DuckDB call the same C functions: no result differs by a bit."""
    generator = np.random.default_rng(seed)
    x = np.exp(generator.uniform(-40, 40, 2000)) * generator.choice((1.0, -1.0), 2000)
    y = generator.uniform(-8, 8, 2000)
    rows: list[Row] = [{"x": float(a), "y": float(b)} for a, b in zip(x, y, strict=True)]
    types = {"x": DOUBLE, "y": DOUBLE}
    typed = analyze(operation, types)
    connection = connect()
    connection.register("r", pa.table({"x": x, "y": y}))
    told = [comparable(value) for (value,) in connection.execute(f"SELECT {duckdb_text(typed, str)} FROM r").fetchall()]
    assert [comparable(cell) for cell in run([("out", typed)], types, rows)[0]] == told


def one(text: str, types: dict[str, DataType], **row: object) -> object:
    return run([("out", analyze(text, types))], types, [row])[0][0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("late / flights", 0.75),
        ("late / (flights - 4)", None),
        ("late // 2", 1),
        ("-late % 2", -1),
        ("round(late / 7, 2)", 0.43),
        ("late + 9223372036854775807", ERROR),
        ("CASE WHEN flights > 5 THEN flights * 9223372036854775807 ELSE 0 END", 0),
        ("coalesce(gone, late)", 3),
        ("gone > 1 AND late > 5", False),
        ("gone > 1 OR late = 3", True),
        ("NOT gone IN (1, 2)", None),
        ("late IN (1, gone, 3)", True),
        ("late IN (1, gone)", None),
        ("origin = 'JFK'", True),
        ("origin <> 'EWR'", True),
        ("origin IN ('LGA', 'JFK')", True),
        ("CASE WHEN late > 1 THEN 'many' ELSE origin END", "many"),
        ("coalesce(nullif(origin, 'JFK'), 'none')", "none"),
        ("least(late, gone, 7)", 3),
        ("greatest(late, 2.5)", 3.0),
        ("(epoch(landed) - epoch(departed)) / 60", 90.0),
        ("epoch_us(landed) - epoch_us(departed)", 5_400_000_000),
        ("landed > DATE '2013-01-01'", True),
        ("cast(0.5 + late AS BIGINT)", 4),
        ("price + 1", Fraction(1351, 100)),
        ("price * 3", Fraction(3753, 100)),
        ("round(price, 1)", Fraction(125, 10)),
        ("price / 2", 6.255),
        ("cast(price AS BIGINT)", 13),
        ("-9223372036854775808 // late // -1", (1 << 63) // 3),
        ("abs(-9223372036854775808)", ERROR),
        ("power(late, 2) + sqrt(16)", 13.0),
        ("gone IS NULL", True),
        ("cast(late AS BOOLEAN)", True),
    ],
)
def test_finish_by_hand(text: str, value: object) -> None:
    """The finish subset of design section 4, one line each."""
    types = {
        "late": BIGINT,
        "flights": BIGINT,
        "gone": BIGINT,
        "origin": VARCHAR,
        "landed": TIMESTAMP,
        "departed": TIMESTAMP,
        "price": parse_type("DECIMAL(10,2)"),
    }
    instants = [int(datetime.fromisoformat(at + "+00:00").timestamp()) * 1_000_000 for at in ("2013-01-01 11:30:00", "2013-01-01 10:00:00")]
    row = {
        "late": 3,
        "flights": 4,
        "gone": None,
        "origin": "JFK",
        "landed": instants[0],
        "departed": instants[1],
        "price": Fraction(1251, 100),
    }
    assert comparable(one(text, types, **row)) == comparable(value)


def test_a_derived_feature_reads_an_earlier_one() -> None:
    """Outputs are computed in order, and a status goes with the value: an error stays one, however it is used."""
    types = {"a": BIGINT, "share": DOUBLE, "big": BIGINT}
    outputs = [
        ("share", analyze("a / 4", types)),
        ("big", analyze("a * 9223372036854775807", types)),
        ("half", analyze("share / 2 + 0 * big", types)),
        ("safe", analyze("share", types)),
    ]
    names = ["a", "share", "big", "half", "safe"]
    program = compile_finish(outputs, {name: number for number, name in enumerate(names)})
    words, valid = np.zeros((5, 3), np.int64), np.zeros((5, 3), np.uint8)
    words[0], valid[0] = [1, 2, 0], [1, 1, 0]
    run_finish(*program.arrays, words, valid, 0, 3)
    assert valid.tolist() == [[1, 1, 0], [1, 1, 0], [1, 2, 0], [1, 2, 0], [1, 1, 0]]
    assert words.view(np.float64)[1].tolist() == [0.25, 0.5, 0.0]
    assert words.view(np.float64)[3].tolist() == [0.125, 0.0, 0.0]


def test_only_the_rows_asked_for_are_written() -> None:
    """`[row_start, row_end)` is half-open and rows outside keep their bytes."""
    program = compile_finish([("b", analyze("a + 1", {"a": BIGINT}))], {"a": 0, "b": 1})
    words, valid = np.arange(10, dtype=np.int64).reshape(2, 5).copy(), np.ones((2, 5), np.uint8)
    run_finish(*program.arrays, words, valid, 1, 3)
    assert words[1].tolist() == [5, 2, 3, 8, 9]
    run_finish(*program.arrays, words, valid, 2, 2)
    assert words[1].tolist() == [5, 2, 3, 8, 9]


@pytest.mark.parametrize("value", [0, 1, -1, 12345, 10**17, -(10**20) - 7, 10**37, (1 << 63) - 1, -(1 << 63), 1 << 63])
def test_a_wide_decimal_becomes_a_double(value: int) -> None:
    """A sum of DECIMALs, DECIMAL(38,2), divides: its two words are read as the nearest DOUBLE or a neighbour, short ones exactly."""
    kind = parse_type("DECIMAL(38,2)")
    outputs = [("mean", analyze("total / 1", {"total": kind})), ("known", analyze("total IS NOT NULL", {"total": kind}))]
    program = compile_finish(outputs, {"total": 0, "mean": 2, "known": 3})
    low, high = value & ((1 << 64) - 1), value >> 64
    words, valid = np.array([[low - (1 << 64) if low >> 63 else low], [high], [0], [0]], np.int64), np.ones((4, 1), np.uint8)
    run_finish(*program.arrays, words, valid, 0, 1)
    exact = value / 100
    found = words.view(np.float64)[2, 0]
    assert found == exact if abs(value) <= 1 << 53 else math.isclose(found, exact, rel_tol=4e-16)
    assert words[3, 0] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lower(s) = 'a'", "'lower' cannot be used in a derived feature"),
        ("s LIKE 'a'", "'like'"),
        ("s < 'a'", "'<' on VARCHAR"),
        ("year(t) = 2013", "'year'"),
        ("cast(s AS BIGINT)", "the cast of VARCHAR to BIGINT"),
        ("cast(n AS VARCHAR) = '1'", "the cast of BIGINT to VARCHAR"),
        ("w + 1", "Cast it first: cast(x AS DOUBLE)"),
        ("n * cast(1 AS DECIMAL(18,2))", "more than 18 digits"),
        ("least(s, 'a')", "'least' on VARCHAR"),
        ("cast(t AS DATE)", "the cast of TIMESTAMP to DATE"),
    ],
)
def test_what_a_derived_feature_cannot_do(text: str, said: str) -> None:
    """Outside the finish subset the error names the feature and says to move it into a row expression."""
    types = {"s": VARCHAR, "t": TIMESTAMP, "n": BIGINT, "w": parse_type("DECIMAL(38,2)"), "day": DATE, "b": BOOLEAN}
    with pytest.raises(ExpressionError) as caught:
        compile_finish([("share", analyze(text, types))], {name: number for number, name in enumerate([*types, "share"])})
    assert said in str(caught.value) and "share: " in str(caught.value)
    assert "row expression" in str(caught.value) or "DECIMAL" in str(caught.value)


def test_a_program_is_plain_arrays() -> None:
    """Codes are int64 triples and the first constant is the stack's depth, so that one row costs one call of six arguments."""
    program = compile_finish([("c", analyze("a + 2 * b", {"a": BIGINT, "b": BIGINT}))], {"a": 0, "b": 1, "c": 2})
    assert isinstance(program, FinishProgram)
    assert program.codes.shape == (6, 3) and program.codes.dtype == program.constants.dtype == np.int64
    assert program.constants.tolist() == [3, 2]
    assert program.outputs == (("c", BIGINT),)
