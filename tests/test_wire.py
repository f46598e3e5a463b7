"""Values go over the wire as JSON and come back with their bits."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featreg.errors import DataError, UsageError
from featreg.serve.wire import instant_of, instant_text, key_reader, plain, read_type, reader, row_reader, writer
from featreg.session.parity import same_bits
from featreg.vocabulary import BIGINT, DATE, DOUBLE, TIMESTAMP, VARCHAR, DataType, decimal, list_of, map_of
from tests.worlds import NAN, POOLS

SCALARS = {
    "BIGINT": st.integers(-(1 << 63), (1 << 63) - 1),
    "DOUBLE": st.floats().map(lambda value: NAN if value != value else value),
    "DECIMAL(38,4)": st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**33), max_value=10**33),
    "BOOLEAN": st.booleans(),
    "VARCHAR": st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["NaN", "Infinity", "null", "2020-01-01", "\0"]),
    "DATE": st.dates(),
    "TIMESTAMP": st.datetimes(timezones=st.just(UTC)),
}


def over_the_wire(value, kind: DataType):
    write, read = writer(kind), reader(read_type(str(kind)))
    sent = orjson.dumps(value if value is None or write is None else write(value))
    for parse in (orjson.loads, json.loads):
        found = parse(sent)
        yield found if found is None or read is None else read(found)


@given(st.sampled_from(sorted(SCALARS)).flatmap(lambda name: st.tuples(st.just(name), SCALARS[name], st.lists(st.none() | SCALARS[name]))))
def test_a_value_a_list_and_a_map_of_every_type_come_back_with_their_bits(drawn):
    name, value, many = drawn
    kind = read_type(name)
    pairs = [(one, number) for number, one in enumerate(many) if one is not None]
    for sent, typed in ((value, kind), (None, kind), (many, list_of(kind)), (pairs, map_of(kind)), (None, list_of(kind))):
        for found in over_the_wire(sent, typed):
            assert same_bits(found, sent)


@pytest.mark.parametrize("name", POOLS)
def test_the_wild_values_of_the_worlds_come_back(name):
    for value in (value for pool in POOLS[name] for value in pool):
        for found in over_the_wire(value, read_type(name)):
            assert same_bits(found, NAN if value != value else value)


@pytest.mark.parametrize("kind", [BIGINT, decimal(10, 2), list_of(decimal(10, 2)), map_of(decimal(38, 0)), map_of(VARCHAR), list_of(DATE)])
def test_a_type_is_read_back_from_its_text(kind):
    assert read_type(str(kind)) == kind


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_is_the_same_microsecond(moment):
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
    assert instant_text(micros).endswith("Z") and instant_of(instant_text(micros)) == micros
    assert instant_of(instant_text(None)) is None


@given(st.sampled_from(sorted(SCALARS)).flatmap(lambda name: st.tuples(st.just(name), SCALARS[name])))
def test_what_a_caller_gives_is_what_the_service_reads(drawn):
    """A key or request column: from Python to JSON by its own type, and back by the declared one."""
    name, value = drawn
    convert = key_reader("a", read_type(name))
    found = json.loads(json.dumps(plain(value)))
    assert same_bits(found if convert is None else convert(found), value)


def test_a_whole_number_is_a_double_where_one_is_declared_and_never_a_key_s_other_type():
    read = row_reader([("x", DOUBLE), ("n", BIGINT), ("s", VARCHAR), ("d", decimal(9, 2))], strict=True)
    row = read({"x": 3, "n": True, "s": "NaN", "d": 1.5, "more": "2020"})
    assert (row, type(row["x"])) == ({"x": 3.0, "n": True, "s": "NaN", "d": Decimal("1.5"), "more": "2020"}, float)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (DOUBLE, "nan"), (DOUBLE, "1.5"),
        (BIGINT, 1 << 63), (BIGINT, -(1 << 63) - 1), (DATE, "2020-02-30"), (DATE, "20200101T00"),
        (TIMESTAMP, "yesterday"), (TIMESTAMP, "2020-01-01T00:00:00.1234567"), (decimal(9, 2), "NaN"), (decimal(9, 2), "one"),
        (DOUBLE, 10**400),
    ],
)  # fmt: skip
def test_a_text_that_is_no_such_value_is_told_and_a_push_keeps_it_for_its_own_verdict(kind, value):
    with pytest.raises(DataError, match="'a' is"):
        row_reader([("a", kind)], strict=True)({"a": value})
    assert row_reader([("a", kind)], strict=False)({"a": value}) == {"a": value}


def test_what_has_no_place_in_json_is_told_to_the_caller():
    with pytest.raises(UsageError, match="a set has no place"):
        plain({1})
    assert plain(date(2020, 1, 1)) == "2020-01-01"
