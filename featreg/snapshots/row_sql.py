"""Spell a row's SHA-256 and the nine numbers of many rows as SQL, for DuckDB and for Spark.

A row is the text of its cells, columns in order of their names.  Each cell says where it ends, so no two rows share a text:

    NULL n;   integer i<decimal>;   bool b1; b0;   date a<days>;   timestamp t<UTC microseconds>;
    double d<16 hex digits of its bits>; with -0.0 as 0.0 and one NaN   decimal c<unscaled integer>:<scale>;
    string s<bytes>:<UTF-8>;   list l<n>:<cells>;   map m<n>:<key and value cells, keys ascending>;

DuckDB's `concat` leaves NULL out, so a cell is a few flat parts and a row one `concat`: 2 to 3 times as fast as nested ones.
"""

from collections.abc import Sequence

from featreg.plan.relation import quote
from featreg.snapshots.families import Column, Family
from featreg.snapshots.numbers import LIMBS

_NAN = "7ff8000000000000"
_HALVES = LIMBS // 2


def duckdb_row_hash(columns: Sequence[Column]) -> str:
    """The row's SHA-256, 64 hexadecimal digits, as a DuckDB expression over columns of those names."""
    parts = [part for column in columns for part in _duckdb_parts(quote(column.name), column.family, 0)]
    return f"sha256({_concat(parts)})"


def duckdb_numbers(columns: Sequence[Column], relation: str, by: str | None = None, also: Sequence[str] = ()) -> str:
    """A query for the nine numbers of a relation: count, then the limbs.

    by: a column to group by, which comes first.  also: more aggregates of the relation, which come last.
    """
    h = _free_name(columns)
    halves = ", ".join(f"('0x' || {h}[{1 + 16 * i}:{16 + 16 * i}])::UBIGINT AS {h}{i}" for i in range(_HALVES))
    limbs = ", ".join(f"sum({h}{i} >> 32), sum({h}{i} & 4294967295)" for i in range(_HALVES))
    hashed = f"SELECT *, {halves} FROM (SELECT *, {duckdb_row_hash(columns)} AS {h} FROM {relation})"
    grouped = "" if by is None else f"{by}, "
    more = "".join(f", {text}" for text in also)
    ending = "" if by is None else f" GROUP BY {by}"
    return f"SELECT {grouped}count(*), {limbs}{more} FROM ({hashed}){ending}"


def _free_name(columns: Sequence[Column]) -> str:
    """A name that no column begins with."""
    taken, name = [column.name.lower() for column in columns], "h"
    while any(other.startswith(name) for other in taken):
        name += "h"
    return name


def _concat(parts: Sequence[str]) -> str:
    return f"concat({', '.join(parts)})" if parts else "''"


def _letter(value: str, letter: str) -> str:
    return f"CASE WHEN {value} IS NULL THEN 'n' ELSE '{letter}' END"


def _duckdb_parts(value: str, family: Family, depth: int) -> list[str]:
    """What `concat` takes for one cell: no part but the first and the last is there for a NULL."""
    match family.name:
        case "absent":
            return ["'n;'"]
        case "integer":
            return [_letter(value, "i"), value, "';'"]
        case "bool":
            return [f"CASE WHEN {value} IS NULL THEN 'n;' WHEN {value} THEN 'b1;' ELSE 'b0;' END"]
        case "double":
            one = f"CASE WHEN isnan({value}) THEN 'nan'::DOUBLE WHEN {value} = 0 THEN 0.0::DOUBLE ELSE {value}::DOUBLE END"
            return [_letter(value, "d"), f"lower(hex(({one})::BIT::BLOB))", "';'"]
        case "string":
            text = value if family.type == "VARCHAR" else f"{value}::VARCHAR"
            return [_letter(value, "s"), f"strlen({text})", f"':' || {text}", "';'"]
        case "date":
            return [_letter(value, "a"), f"({value} - DATE '1970-01-01')", "';'"]
        case "timestamp":
            return [_letter(value, "t"), _duckdb_micros(value, family.type), "';'"]
        case "decimal":
            return [_letter(value, "c"), f"replace({value}::VARCHAR, '.', '')::HUGEINT || ':{family.scale}'", "';'"]
        case "list":
            element, item = family.parts[0], f"e{depth}"
            cells = f"lambda {item}: {_concat(_duckdb_parts(item, element, depth + 1))}"
            there = value if family.type.endswith("[]") else f"{value}::{element.type}[]"
            return [_letter(value, "l"), f"len({there})", f"':' || array_to_string(list_transform({there}, {cells}), '')", "';'"]
        case "map":
            key, item = family.parts, f"e{depth}"
            pair = _duckdb_parts(f"{item}.key", key[0], depth + 1) + _duckdb_parts(f"{item}.value", key[1], depth + 1)
            entries = f"list_sort(map_entries({value}))"
            cells = f"list_transform({entries}, lambda {item}: {_concat(pair)})"
            return [_letter(value, "m"), f"cardinality({value})", f"':' || array_to_string({cells}, '')", "';'"]
    raise AssertionError(family)


def _duckdb_micros(value: str, kind: str) -> str:
    """Microseconds; the infinite instants have none of their own, and are what Parquet keeps them as."""
    if kind == "TIMESTAMP_NS":
        fine = "an instant has digits below the microsecond: write the column in microseconds"
        return f"CASE WHEN epoch_ns({value}) % 1000 <> 0 THEN error('{fine}')::BIGINT ELSE epoch_us({value}) END"
    plain = value if kind in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE") else f"{value}::TIMESTAMP"
    endless = f"CASE WHEN {plain} > '1970-01-01' THEN 9223372036854775807 ELSE -9223372036854775807 END"
    return f"CASE WHEN isfinite({plain}) THEN epoch_us({plain}) WHEN {plain} IS NOT NULL THEN {endless} END"


def spark_row_hash(columns: Sequence[Column]) -> str:
    """The row's SHA-256 as a Spark expression.  Neither the session's zone nor its ANSI setting matters to it."""
    cells = ", ".join(_spark_cell(_spark_name(column.name), column.family, 0) for column in columns)
    return f"sha2(concat({cells}), 256)" if cells else "sha2('', 256)"


def spark_numbers(columns: Sequence[Column], relation: str) -> str:
    """A Spark query for the nine numbers of a relation: count, then the limbs."""
    return f"SELECT {spark_nine('h')} FROM (SELECT {spark_row_hash(columns)} AS h FROM {relation})"


def spark_nine(row_hash: str) -> str:
    """The nine aggregates of row hashes: count, then the limbs."""
    limbs = (f"sum(CAST(conv(substr({row_hash}, {1 + 8 * i}, 8), 16, 10) AS DECIMAL(20, 0)))" for i in range(LIMBS))
    return f"count(*), {', '.join(limbs)}"


def _spark_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _spark_cell(value: str, family: Family, depth: int) -> str:
    match family.name:
        case "integer":
            return _or_null(f"'i', CAST({value} AS STRING)")
        case "bool":
            return f"CASE WHEN {value} IS NULL THEN 'n;' WHEN {value} THEN 'b1;' ELSE 'b0;' END"
        case "double":
            wide = f"CAST({value} AS DOUBLE)"
            bits = f"CAST(reflect('java.lang.Double', 'doubleToLongBits', {wide}) AS BIGINT)"
            digits = f"lower(lpad(hex({bits}), 16, '0'))"
            there = f"CASE WHEN {value} = 0 THEN '{'0' * 16}' WHEN isnan({value}) THEN '{_NAN}' ELSE {digits} END"
            return f"CASE WHEN {value} IS NULL THEN 'n;' ELSE concat('d', {there}, ';') END"
        case "string":
            return _or_null(f"'s', octet_length({value}), ':', {value}")
        case "date":
            return _or_null(f"'a', unix_date({value})")
        case "timestamp":
            if family.type == "timestamp":
                return _or_null(f"'t', unix_micros({value})")
            return _or_null(f"'t', timestampdiff(MICROSECOND, TIMESTAMP_NTZ '1970-01-01 00:00:00', {value})")
        case "decimal":
            digits = f"regexp_replace(replace(CAST({value} AS STRING), '.', ''), 'E.*$', '')"  # 0.000000123 may be 1.23E-7
            unscaled = f"CAST({digits} AS DECIMAL(38, 0))"
            return _or_null(f"'c', CAST({unscaled} AS STRING), ':{family.scale}'")
        case "list":
            item = f"e{depth}"
            cells = f"transform({value}, {item} -> {_spark_cell(item, family.parts[0], depth + 1)})"
            return _or_null(f"'l', size({value}), ':', array_join({cells}, '')")
        case "map":
            item = f"e{depth}"
            key = _spark_cell(item, family.parts[0], depth + 1)
            of_key = _spark_cell(f"element_at({value}, {item})", family.parts[1], depth + 1)
            cells = f"transform(array_sort(map_keys({value})), {item} -> concat({key}, {of_key}))"
            return _or_null(f"'m', size({value}), ':', array_join({cells}, '')")
    raise AssertionError(family)


def _or_null(parts: str) -> str:
    return f"coalesce(concat({parts}, ';'), 'n;')"
