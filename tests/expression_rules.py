"""Read the rules of the expression language as plain Python: the second witness of `test_expressions` and `test_finish`.

`Writer` makes random expressions as pairs of SQL text and a closure that says what
it must give for a row; it never sees featreg's tree.  A row is a dict: a DATE is
days, a TIMESTAMP microseconds since 1970, a DECIMAL a `Fraction`, NULL is None.
"""

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

LEAST, MOST = -(1 << 63), (1 << 63) - 1
Row = dict[str, object]


class Overflow(Exception):
    """A whole number or DECIMAL left its type on the evaluated path."""


@dataclass(frozen=True)
class Expression:
    text: str
    type: str
    value: Callable[[Row], object]
    digits: int = 0  # of a DECIMAL
    scale: int = 0


COLUMNS = {
    "n": "BIGINT", "m": "BIGINT", "x": "DOUBLE", "y": "DOUBLE", "p": "DECIMAL(10,2)", "q": "DECIMAL(6,0)", "b": "BOOLEAN", "c": "BOOLEAN",
    "s": "VARCHAR", "u": "VARCHAR", "t": "TIMESTAMP", "z": "TIMESTAMP", "day": "DATE",
}  # fmt: skip

TEXTS = ("", "a", "JFK", "jfk", "é", "Ünï", " x ", "12", "-7", "1.5", "nan", "a%_", "🛩b")
INTEGERS = (0, 1, -1, 2, 3, 7, -5, 1000, LEAST, MOST, LEAST + 1, 1 << 53, (1 << 53) + 1, 1 << 32)
DOUBLES = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.5,
    -2.5,
    1e-300,
    5e-324,
    1.7976931348623157e308,
    -1e300,
    math.inf,
    -math.inf,
    math.nan,
    0.1,
    2.675,
    1e15,
    3.0,
    9.3e18,
)
INSTANTS = tuple(
    (datetime.fromisoformat(text) - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    for text in (
        "2012-02-29T23:59:59.999999",
        "2013-01-01",
        "1970-01-01",
        "1969-12-31T23:59:59.999999",
        "0001-01-01",
        "9999-12-31T23:59:59",
        "1900-02-28T12:00:00.5",
    )
)
DAYS = tuple(instant // 86_400_000_000 for instant in INSTANTS)


def random_row(rnd: random.Random) -> Row:
    """One value or NULL per column; extremes as often as ordinary ones."""

    def one(kind: str) -> object:
        if rnd.random() < 0.15:
            return None
        match kind:
            case "BIGINT":
                return rnd.choice(INTEGERS) if rnd.random() < 0.5 else rnd.randint(-20, 20)
            case "DOUBLE":
                return rnd.choice(DOUBLES) if rnd.random() < 0.5 else rnd.uniform(-100, 100)
            case "DECIMAL(10,2)":
                return Fraction(rnd.choice((0, 1, -1, 50, 250, -250, 10**10 - 1, 1 - 10**10, rnd.randint(-99999, 99999))), 100)
            case "DECIMAL(6,0)":
                return Fraction(rnd.choice((0, 1, -1, 999_999, rnd.randint(-999, 999))))
            case "BOOLEAN":
                return rnd.random() < 0.5
            case "VARCHAR":
                return rnd.choice(TEXTS)
            case "TIMESTAMP":
                return rnd.choice(INSTANTS)
        return rnd.choice(DAYS)

    return {name: one(kind) for name, kind in COLUMNS.items()}


# ---- the rules, one by one


def clean(value: float) -> float:
    return value + 0.0


def bigint(value: int) -> int:
    if not LEAST <= value <= MOST:
        raise Overflow
    return value


def toward_zero(value: Fraction) -> int:
    return math.floor(value) if value >= 0 else math.ceil(value)


def half_away(value: Fraction) -> int:
    return toward_zero(value + (Fraction(1, 2) if value >= 0 else Fraction(-1, 2)))


def divide(a: float, b: float) -> float | None:
    return None if b == 0 else clean(_ieee_divide(a, b))


def _ieee_divide(a: float, b: float) -> float:
    if (math.isinf(a) and math.isinf(b)) or math.isnan(a) or math.isnan(b):
        return math.nan
    return a / b


def whole_divide(a: float, b: float) -> float | None:
    quotient = divide(a, b)
    return quotient if quotient is None or not math.isfinite(quotient) else clean(float(toward_zero(Fraction(quotient))))


def remainder(a: float, b: float) -> float | None:
    if b == 0:
        return None
    if math.isinf(a) or math.isnan(a) or math.isnan(b):
        return math.nan
    return clean(math.fmod(a, b))


def power(a: float, b: float) -> float:
    try:
        return clean(math.pow(a, b))
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        return math.inf if a == 0 else math.nan


def exponential(a: float) -> float:
    try:
        return math.exp(a)
    except OverflowError:
        return math.inf


def round_double(a: float, digits: int) -> float:
    if not math.isfinite(a):
        return a
    scaled = a * 10.0**digits if digits >= 0 else a / 10.0**-digits
    if not math.isfinite(scaled):
        return a
    whole = float(half_away(Fraction(scaled)))
    back = whole / 10.0**digits if digits >= 0 else whole * 10.0**-digits
    return clean(back) if math.isfinite(back) else a


def double_to_bigint(a: float) -> int | None:
    if not math.isfinite(a):
        return None
    nearest = round(a)  # halves to even
    return nearest if LEAST <= nearest <= MOST else None


def double_to_decimal(a: float, digits: int, scale: int) -> Fraction | None:
    scaled = a * 10.0**scale
    if not math.isfinite(scaled) or abs(scaled) >= 10.0 ** (digits + 1):
        return None
    whole = half_away(Fraction(scaled))
    return Fraction(whole, 10**scale) if abs(whole) < 10**digits else None


def decimal_to_bigint(a: Fraction) -> int | None:
    nearest = half_away(a)
    return nearest if LEAST <= nearest <= MOST else None


def decimal_to_decimal(a: Fraction, digits: int, scale: int) -> Fraction | None:
    whole = half_away(a * 10**scale)
    return Fraction(whole, 10**scale) if abs(whole) < 10**digits else None


def decimal_to_double(a: Fraction, scale: int) -> float:
    digits = int(a * 10**scale)
    if abs(digits) <= 1 << 53:
        return float(a)
    whole = toward_zero(a)
    return clean(float(whole) + float(digits - whole * 10**scale) / 10.0**scale)


def order(a: object, b: object) -> int:
    """NaN is itself and above every number; text by its bytes."""
    if isinstance(a, str) and isinstance(b, str):
        a, b = a.encode(), b.encode()
    if isinstance(a, float) and isinstance(b, float) and (math.isnan(a) or math.isnan(b)):
        return int(math.isnan(a)) - int(math.isnan(b))
    return int(a > b) - int(a < b)  # type: ignore[operator]


def three_valued(values: list[object], decisive: bool) -> bool | None:
    return decisive if decisive in values else None if None in values else not decisive


def is_in(value: object, items: list[object]) -> bool | None:
    if value is None:
        return None
    found = [None if item is None else order(value, item) == 0 for item in items]
    return three_valued(found, True)


def like(text: str, pattern: str) -> bool:
    return re.fullmatch("".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern), text, re.DOTALL) is not None


def date_part(part: str, micros: int) -> int:
    at = datetime(1970, 1, 1) + timedelta(microseconds=micros)
    match part:
        case "quarter":
            return (at.month + 2) // 3
        case "dayofweek":
            return at.isoweekday() % 7
        case "dayofyear":
            return at.timetuple().tm_yday
        case "week":
            return at.isocalendar().week
    return getattr(at, part)


def strict(rule: Callable[..., object], *arguments: Expression) -> Callable[[Row], object]:
    """NULL when any argument is, and every argument is evaluated."""

    def value(row: Row) -> object:
        values = [argument.value(row) for argument in arguments]
        return None if None in values else rule(*values)

    return value


COMPARISONS: dict[str, Callable[[int], bool]] = {
    "=": lambda o: o == 0, "<>": lambda o: o != 0, "<": lambda o: o < 0, "<=": lambda o: o <= 0, ">": lambda o: o > 0,
    ">=": lambda o: o >= 0,
}  # fmt: skip


class Writer:
    """Random expressions; `finish` keeps to what a derived feature may hold."""

    def __init__(self, rnd: random.Random, finish: bool):
        self.rnd, self.finish = rnd, finish

    def any(self, depth: int) -> Expression:
        kinds = ["BIGINT", "DOUBLE", "DOUBLE", "DECIMAL", "BOOLEAN", "BOOLEAN", "TIMESTAMP"] + (
            [] if self.finish else ["VARCHAR", "VARCHAR"]
        )
        return self.of(self.rnd.choice(kinds), depth)

    def of(self, kind: str, depth: int) -> Expression:
        if depth <= 0 or self.rnd.random() < 0.1:
            return self.leaf(kind)
        if self.rnd.random() < 0.2 and kind != "DECIMAL":
            return self.choice_of(kind, depth - 1)
        return {
            "BIGINT": self.whole, "DOUBLE": self.double, "DECIMAL": self.decimal, "BOOLEAN": self.boolean,
            "VARCHAR": self.varchar, "TIMESTAMP": self.timestamp, "DATE": lambda depth: self.leaf("DATE"),
        }[kind](depth - 1)  # fmt: skip

    def leaf(self, kind: str) -> Expression:
        names = [name for name, declared in COLUMNS.items() if declared.startswith(kind)]
        if kind == "DECIMAL" or self.rnd.random() < 0.7:
            name = self.rnd.choice(names)
            digits, scale = map(int, re.findall(r"\d+", COLUMNS[name])) if kind == "DECIMAL" else (0, 0)
            spelled = self.rnd.choice((name, name.upper(), f'"{name}"'))
            return Expression(spelled, kind, lambda row: clean(row[name]) if isinstance(row[name], float) else row[name], digits, scale)
        return self.constant(kind)

    def constant(self, kind: str) -> Expression:
        if self.rnd.random() < 0.1:
            return Expression(f"CAST(NULL AS {kind})", kind, lambda row: None)
        match kind:
            case "BIGINT":
                value: object = self.rnd.choice(INTEGERS)
                text = str(value)
            case "DOUBLE":
                value = clean(self.rnd.choice([d for d in DOUBLES if math.isfinite(d)]))
                text = repr(value)
            case "BOOLEAN":
                value = self.rnd.random() < 0.5
                text = str(value)
            case "VARCHAR":
                value = self.rnd.choice(TEXTS)
                text = f"'{value}'"
            case "TIMESTAMP":
                value = self.rnd.choice(INSTANTS)
                text = f"TIMESTAMP '{(datetime(1970, 1, 1) + timedelta(microseconds=value)).isoformat(' ')}'"  # type: ignore[arg-type]
            case _:
                value = self.rnd.choice(DAYS)
                text = f"DATE '{(datetime(1970, 1, 1) + timedelta(days=value)).date()}'"  # type: ignore[arg-type]
        return Expression(text, kind, lambda row: value)

    def choice_of(self, kind: str, depth: int) -> Expression:
        a, b, condition = self.of(kind, depth), self.of(kind, depth), self.of("BOOLEAN", depth)
        what = self.rnd.choice(("case", "coalesce", "nullif", "least", "greatest"))
        if what in ("least", "greatest") and ((self.finish and kind == "VARCHAR") or kind == "BOOLEAN"):
            what = "case"
        match what:
            case "case":
                other = self.of(kind, depth)
                text = f"CASE WHEN {condition.text} THEN {a.text} WHEN {a.text} IS NULL THEN {b.text} ELSE {other.text} END"
                return Expression(
                    text,
                    kind,
                    lambda row: a.value(row) if condition.value(row) else b.value(row) if a.value(row) is None else other.value(row),
                )
            case "coalesce":
                return Expression(
                    f"coalesce({a.text}, {b.text})", kind, lambda row: first if (first := a.value(row)) is not None else b.value(row)
                )
            case "nullif":

                def nullif(row: Row) -> object:
                    first, second = a.value(row), b.value(row)
                    return None if first is not None and second is not None and order(first, second) == 0 else first

                return Expression(f"nullif({a.text}, {b.text})", kind, nullif)

        def extreme(row: Row) -> object:
            best: object = None
            for value in (a.value(row), b.value(row)):
                if value is not None and (best is None or order(value, best) == (-1 if what == "least" else 1)):
                    best = value
            return best

        return Expression(f"{what}({a.text}, {b.text})", kind, extreme)

    def whole(self, depth: int) -> Expression:
        a, b = self.of("BIGINT", depth), self.of("BIGINT", depth)
        what = self.rnd.choice(("+", "-", "*", "//", "%", "negate", "abs", "double", "boolean", "decimal", "epoch", "clock", "length"))
        match what:
            case "+" | "-" | "*":
                rule = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[what]
                return Expression(f"({a.text} {what} {b.text})", "BIGINT", strict(lambda i, j: bigint(rule(i, j)), a, b))
            case "//":
                return Expression(
                    f"({a.text} // {b.text})", "BIGINT", strict(lambda i, j: None if j == 0 else bigint(toward_zero(Fraction(i, j))), a, b)
                )
            case "%":
                return Expression(
                    f"({a.text} % {b.text})", "BIGINT", strict(lambda i, j: None if j == 0 else i - j * toward_zero(Fraction(i, j)), a, b)
                )
            case "negate":
                return Expression(f"(- {a.text})", "BIGINT", strict(lambda i: bigint(-i), a))
            case "abs":
                return Expression(f"abs({a.text})", "BIGINT", strict(lambda i: bigint(abs(i)), a))
            case "double":
                x = self.of("DOUBLE", depth)
                return Expression(f"CAST({x.text} AS BIGINT)", "BIGINT", strict(double_to_bigint, x))
            case "boolean":
                c = self.of("BOOLEAN", depth)
                return Expression(f"({c.text})::bigint", "BIGINT", strict(int, c))
            case "decimal":
                d = self.of("DECIMAL", depth)
                return Expression(f"CAST({d.text} AS BIGINT)", "BIGINT", strict(decimal_to_bigint, d))
            case "epoch":
                t = self.of("TIMESTAMP", depth)
                spelling, size = self.rnd.choice((("epoch_us", 1), ("epoch_ms", 1000)))
                return Expression(f"{spelling}({t.text})", "BIGINT", strict(lambda i: i // size, t))
        if self.finish:
            return a
        if what == "clock":
            part = self.rnd.choice(("year", "quarter", "month", "day", "hour", "minute", "second", "dayofweek", "dayofyear", "week"))
            if self.rnd.random() < 0.5:
                t = self.of("TIMESTAMP", depth)
                return Expression(f"extract({part} FROM {t.text})", "BIGINT", strict(lambda i: date_part(part, i), t))
            d = self.of("DATE", depth)
            return Expression(f"{part}({d.text})", "BIGINT", strict(lambda i: date_part(part, i * 86_400_000_000), d))
        s = self.of("VARCHAR", depth)
        return Expression(f"length({s.text})", "BIGINT", strict(len, s))

    def number(self, depth: int) -> Expression:
        """Read as DOUBLE, whatever it was."""
        made = self.of(self.rnd.choice(("DOUBLE", "DOUBLE", "BIGINT", "DECIMAL")), depth)
        rule: Callable[..., object] = (lambda v: decimal_to_double(v, made.scale)) if made.type == "DECIMAL" else float
        return Expression(made.text, made.type, strict(rule, made))

    def double(self, depth: int) -> Expression:
        x, y, a = self.of("DOUBLE", depth), self.of("DOUBLE", depth), self.number(depth)
        what = self.rnd.choice(
            ("+", "-", "*", "/", "//", "%", "negate", "abs", "round", "floor", "ceil", "sqrt", "ln", "exp", "power", "cast", "epoch")
        )
        match what:
            case "+" | "-" | "*":
                rule = {"+": float.__add__, "-": float.__sub__, "*": float.__mul__}[what]
                return Expression(f"({a.text} {what} {y.text})", "DOUBLE", strict(lambda i, j: clean(rule(i, j)), a, y))
            case "/":
                b = self.number(depth)
                return Expression(f"({a.text} / {b.text})", "DOUBLE", strict(divide, a, b))
            case "//":
                return Expression(f"({x.text} // {a.text})", "DOUBLE", strict(whole_divide, x, a)) if a.type != "DECIMAL" else x
            case "%":
                return Expression(f"({x.text} % {a.text})", "DOUBLE", strict(remainder, x, a)) if a.type != "DECIMAL" else x
            case "negate":
                return Expression(f"(- {x.text})", "DOUBLE", strict(lambda i: clean(-i), x))
            case "abs":
                return Expression(f"abs({x.text})", "DOUBLE", strict(abs, x))
            case "round":
                digits = self.rnd.choice((None, 0, 1, 2, 5, 15, -1, -3))
                return Expression(
                    f"round({x.text}{'' if digits is None else f', {digits}'})", "DOUBLE", strict(lambda i: round_double(i, digits or 0), x)
                )
            case "floor" | "ceil":
                rule = {"floor": math.floor, "ceil": math.ceil}[what]
                return Expression(f"{what}({x.text})", "DOUBLE", strict(lambda i: clean(float(rule(i))) if math.isfinite(i) else i, x))
            case "sqrt":
                return Expression(f"sqrt({a.text})", "DOUBLE", strict(lambda i: None if i < 0 else math.sqrt(i), a))
            case "ln":
                return Expression(f"ln({a.text})", "DOUBLE", strict(lambda i: None if i <= 0 else math.log(i), a))
            case "exp":
                return Expression(f"exp({a.text})", "DOUBLE", strict(exponential, a))
            case "power":
                return Expression(f"power({x.text}, {a.text})", "DOUBLE", strict(power, x, a))
            case "cast":
                return Expression(f"CAST({a.text} AS DOUBLE)", "DOUBLE", a.value)
        t, day = self.of("TIMESTAMP", depth), self.of("DATE", depth)
        return Expression(
            f"(epoch({t.text}) - epoch({day.text}))", "DOUBLE", strict(lambda i, j: clean(i / 1e6 - j * 86_400_000_000 / 1e6), t, day)
        )

    def decimal(self, depth: int) -> Expression:
        a, b = self.of("DECIMAL", depth), self.of("DECIMAL", depth)
        what = self.rnd.choice(("+", "-", "*", "negate", "abs", "round", "floor", "ceil", "cast", "double", "whole", "coalesce"))
        match what:
            case "+" | "-":
                scale = max(a.scale, b.scale)
                digits = max(a.digits - a.scale, b.digits - b.scale) + scale + 1
                rule = {"+": Fraction.__add__, "-": Fraction.__sub__}[what]
                made = Expression(f"({a.text} {what} {b.text})", "DECIMAL", strict(rule, a, b), digits, scale)
            case "*":
                made = Expression(
                    f"({a.text} * {b.text})", "DECIMAL", strict(Fraction.__mul__, a, b), a.digits + b.digits, a.scale + b.scale
                )
            case "negate":
                made = Expression(f"(- {a.text})", "DECIMAL", strict(Fraction.__neg__, a), a.digits, a.scale)
            case "abs":
                made = Expression(f"abs({a.text})", "DECIMAL", strict(abs, a), a.digits, a.scale)
            case "round":
                scale = self.rnd.randint(0, 3)
                kept = min(scale, a.scale)
                made = Expression(
                    f"round({a.text}, {scale})", "DECIMAL", strict(lambda v: Fraction(half_away(v * 10**kept), 10**kept), a), a.digits, kept
                )
            case "floor" | "ceil":
                rounding = {"floor": math.floor, "ceil": math.ceil}[what]
                made = Expression(f"{what}({a.text})", "DECIMAL", strict(lambda v: Fraction(rounding(v)), a), a.digits)
            case "cast":
                digits, scale = self.rnd.choice(((5, 1), (18, 4), (9, 9), (3, 0)))
                made = Expression(
                    f"CAST({a.text} AS DECIMAL({digits},{scale}))",
                    "DECIMAL",
                    strict(lambda v: decimal_to_decimal(v, digits, scale), a),
                    digits,
                    scale,
                )
            case "double":
                x = self.of("DOUBLE", depth)
                digits, scale = self.rnd.choice(((5, 1), (12, 4), (9, 9), (3, 0)))
                made = Expression(
                    f"CAST({x.text} AS DECIMAL({digits},{scale}))",
                    "DECIMAL",
                    strict(lambda v: double_to_decimal(v, digits, scale), x),
                    digits,
                    scale,
                )
            case "whole":
                n = self.of("BIGINT", depth)
                digits, scale = self.rnd.choice(((5, 1), (18, 4), (9, 9), (3, 0)))
                made = Expression(
                    f"CAST({n.text} AS DECIMAL({digits},{scale}))",
                    "DECIMAL",
                    strict(lambda v: decimal_to_decimal(Fraction(v), digits, scale), n),
                    digits,
                    scale,
                )
            case _:
                scale = max(a.scale, b.scale)
                digits = max(a.digits - a.scale, b.digits - b.scale) + scale
                made = Expression(
                    f"coalesce({a.text}, {b.text})",
                    "DECIMAL",
                    lambda row: first if (first := a.value(row)) is not None else b.value(row),
                    digits,
                    scale,
                )
        return made if made.digits <= (18 if self.finish else 38) and made.scale <= 18 else a

    def boolean(self, depth: int) -> Expression:
        what = self.rnd.choice(
            ("compare", "compare", "and", "or", "not", "is null", "in", "between", "is true", "cast", "like", "starts_with", "contains")
        )
        b, c = self.of("BOOLEAN", depth), self.of("BOOLEAN", depth)
        kind = self.rnd.choice(("BIGINT", "DOUBLE", "TIMESTAMP", "VARCHAR", "DECIMAL", "BOOLEAN"))
        match what:
            case "compare":
                return self.comparison(kind, depth)
            case "and" | "or":
                return Expression(
                    f"({b.text} {what} {c.text})", "BOOLEAN", lambda row: three_valued([b.value(row), c.value(row)], what == "or")
                )
            case "not":
                return Expression(f"(NOT {b.text})", "BOOLEAN", strict(lambda v: not v, b))
            case "is null":
                a = self.of(kind if not self.finish or kind != "VARCHAR" else "DOUBLE", depth)
                positive = self.rnd.random() < 0.5
                return Expression(
                    f"({a.text} IS {'' if positive else 'NOT '}NULL)", "BOOLEAN", lambda row: (a.value(row) is None) == positive
                )
            case "in":
                kind = "BIGINT" if kind == "DECIMAL" else kind
                value, items = self.of(kind, depth), [self.of(kind, depth - 1) for _ in range(self.rnd.randint(1, 4))]
                text = ", ".join(item.text for item in items)
                return Expression(
                    f"({value.text} IN ({text}))", "BOOLEAN", lambda row: is_in(value.value(row), [item.value(row) for item in items])
                )
            case "between":
                x, low, high = (self.of("DOUBLE", depth) for _ in range(3))

                def between(row: Row) -> bool | None:
                    value, bottom, top = x.value(row), low.value(row), high.value(row)
                    sides = [
                        None if value is None or bottom is None else order(value, bottom) >= 0,
                        None if value is None or top is None else order(value, top) <= 0,
                    ]
                    return three_valued(sides, False)

                return Expression(f"({x.text} BETWEEN {low.text} AND {high.text})", "BOOLEAN", between)
            case "is true":
                wanted = self.rnd.random() < 0.5
                return Expression(f"({b.text} IS {wanted})", "BOOLEAN", lambda row: b.value(row) is wanted)
            case "cast":
                a = self.of(self.rnd.choice(("BIGINT", "DOUBLE", "DECIMAL")), depth)
                return Expression(f"CAST({a.text} AS BOOLEAN)", "BOOLEAN", strict(lambda v: v != 0, a))
        if self.finish:
            return self.comparison("VARCHAR", depth)
        s, u = self.of("VARCHAR", depth), self.of("VARCHAR", depth)
        match what:
            case "like":
                pattern = self.rnd.choice(("a%", "%", "_", "%F%", "J_K", "", "a\\%_", "é%"))
                return Expression(f"({s.text} LIKE '{pattern}')", "BOOLEAN", strict(lambda v: like(v, pattern), s))
            case "starts_with":
                return Expression(f"starts_with({s.text}, {u.text})", "BOOLEAN", strict(str.startswith, s, u))
        return Expression(f"contains({s.text}, {u.text})", "BOOLEAN", strict(str.__contains__, s, u))

    def comparison(self, kind: str, depth: int) -> Expression:
        a, b = self.of(kind, depth), self.of(kind, depth)
        if max(a.digits - a.scale, b.digits - b.scale) + max(a.scale, b.scale) > (18 if self.finish else 38):
            b = a
        spelling = self.rnd.choice(("=", "<>") if self.finish and kind == "VARCHAR" else tuple(COMPARISONS))
        return Expression(f"({a.text} {spelling} {b.text})", "BOOLEAN", strict(lambda i, j: COMPARISONS[spelling](order(i, j)), a, b))

    def varchar(self, depth: int) -> Expression:
        if self.finish:
            return self.leaf("VARCHAR")
        s, u = self.of("VARCHAR", depth), self.of("VARCHAR", depth)
        match self.rnd.choice(("||", "concat", "lower", "upper", "trim", "substr", "cast")):
            case "||":
                return Expression(f"({s.text} || {u.text})", "VARCHAR", strict(str.__add__, s, u))
            case "concat":
                return Expression(f"concat({s.text}, {u.text})", "VARCHAR", lambda row: (s.value(row) or "") + (u.value(row) or ""))  # type: ignore[operator]
            case "lower":
                return Expression(f"lower({s.text})", "VARCHAR", strict(str.lower, s))
            case "upper":
                return Expression(f"UPPER({s.text})", "VARCHAR", strict(str.upper, s))
            case "trim":
                return Expression(f"trim({s.text})", "VARCHAR", strict(lambda v: v.strip(" "), s))
            case "substr":
                start, length = self.rnd.randint(1, 4), self.rnd.randint(0, 3)
                return Expression(
                    f"substring({s.text}, {start}, {length})", "VARCHAR", strict(lambda v: v[start - 1 : start - 1 + length], s)
                )
        n = self.of("BIGINT", depth)
        return Expression(f"CAST({n.text} AS VARCHAR)", "VARCHAR", strict(str, n))

    def timestamp(self, depth: int) -> Expression:
        day = self.of("DATE", depth)
        return Expression(f"CAST({day.text} AS TIMESTAMP)", "TIMESTAMP", strict(lambda v: v * 86_400_000_000, day))
