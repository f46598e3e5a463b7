"""Exact sums and variances against rational arithmetic (`fractions`), in any order and any merge tree."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.dispatcher import Dispatcher

from featreg.algebra import exact as parts
from featreg.algebra.flags import ENTRY

# Only kernels call these: here each is compiled for Python.
exact = SimpleNamespace(
    **{name: njit(**ENTRY)(part.py_func) if isinstance(part, Dispatcher) else part for name, part in vars(parts).items()}
)

NAN_BITS = 0x7FF8000000000000
BIG = 10**38 - 1

finite = st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
near = st.floats(-1e6, 1e6).map(lambda x: x + 0.0)
powers = st.builds(lambda sign, e: sign * math.ldexp(1.0, e), st.sampled_from((1, -1)), st.integers(-1074, 1023))
short = st.builds(math.ldexp, st.integers(-8, 8).map(float), st.integers(-3, 60))
doubles = st.one_of(
    st.lists(finite, max_size=12),
    st.lists(near, max_size=40),
    st.lists(powers, max_size=12),
    st.lists(short, max_size=40),
    st.lists(st.one_of(near, powers, finite), max_size=16).map(lambda xs: xs + [-x + 0.0 for x in xs[::2]]),
)
int64s = st.lists(st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-5, 5), st.sampled_from((-(1 << 63), (1 << 63) - 1))))
wides = st.lists(st.one_of(st.integers(-BIG, BIG), st.integers(-5, 5), st.sampled_from((-BIG, BIG, 1 << 64, -(1 << 64)))), max_size=12)

CYCLES = (
    [],
    [0.0],
    [1e308, 1e308, -1e308, -1e308, 1.0],
    [1e308] * 3,
    [-1e308] * 3 + [1e308] * 2,
    [1.7976931348623157e308, 9.9792015476736e291],
    [1.7976931348623157e308, 9.9792015476735e291],
    [1e16, 1.0, -1e16],
    [1.0, 1e100, 1.0, -1e100],
    [1e-300, 1e300, 1e-300, -1e300],
    [5e-324] * 7,
    [5e-324, -1e-310, 1e-310],
    [2.0**53, 1.0, 2.0**-60],
    [2.0**53, 1.0, -(2.0**-60)],
    [2.0**53 + 2, 1.0],
    [2.0**53, -0.5, -(2.0**-200)],
    [2.0**53, -0.5, 2.0**-200],
    [2.0**53, -0.5, -(2.0**-1074)],
    [0.1] * 10,
    [2.0**k for k in range(-1074, 1000, 25)],
)


def bits(x: float) -> int:
    return int(np.float64(x).view(np.int64))


def rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def variance(values: list[Fraction]) -> float:
    n = len(values)
    return rounded((n * sum(v * v for v in values) - sum(values) ** 2) / (n * (n - 1)))


def halves(value: int) -> tuple[int, int]:
    """A value as (low, high) int64."""
    return int(np.uint64(value & (2**64 - 1)).view(np.int64)), value >> 64


@dataclass
class Bench:
    """Arrays with room for a few hundred partials, and one kind of partial in them."""

    kind: str
    words: np.ndarray = field(default_factory=lambda: np.zeros(1 << 15, np.int64))
    heap: np.ndarray = field(default_factory=lambda: np.full(1 << 17, 77, np.int64))
    heap_top: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    scratch: np.ndarray = field(default_factory=lambda: np.full(exact.SCRATCH_WORDS, -77, np.int64))
    top: int = 0

    def __post_init__(self) -> None:
        self.floats = self.words.view(np.float64)
        self.spills = self.kind in ("sum", "moments")
        self.size = getattr(exact, f"{self.kind.upper()}_WORDS")

    def call(self, verb: str, *arguments):
        return getattr(exact, f"{self.kind}_{verb}")(*arguments)

    def new(self) -> int:
        at, self.top = self.top, self.top + self.size
        self.words[at : at + self.size] = -77
        self.call("init", self.words, self.floats, at)
        return at

    def fold(self, at: int, value) -> None:
        if self.kind == "sum":
            return self.fold_rows(at, [value])
        before = self.heap_top[0]
        if self.spills:
            self.call("fold", self.words, self.floats, at, value, self.heap, self.heap_top)
        elif self.kind == "isum":
            self.call("fold", self.words, self.floats, at, value)
        else:
            self.call("fold", self.words, self.floats, at, *halves(value))
        assert self.heap_top[0] - before <= exact.WIDE_WORDS

    def fold_rows(self, at: int, values: Sequence[float]) -> None:
        """Fold doubles as rows of a column in which every other value is NULL."""
        before, column, valid = self.heap_top[0], np.full(2 * len(values), 1.0), np.zeros(2 * len(values), np.uint8)
        column[::2], valid[::2] = values, 1
        bits = column.view(np.int64)
        ordered = bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
        exact.sum_fold_rows(self.words, self.floats, at, ordered, valid, 0, len(ordered), self.heap, self.heap_top)
        assert self.heap_top[0] - before <= exact.WIDE_WORDS

    def merge(self, into: int, other: int, source: "Bench | None" = None) -> None:
        source = source or self
        before = self.heap_top[0]
        heaps = (self.heap, self.heap_top, source.heap) if self.spills else ()
        self.call("merge", self.words, self.floats, into, source.words, source.floats, other, *heaps)
        assert self.heap_top[0] - before <= exact.WIDE_WORDS

    def folded(self, values) -> int:
        at = self.new()
        if self.kind == "sum":
            self.fold_rows(at, values)
            return at
        for value in values:
            self.fold(at, value)
        return at

    def tree(self, values, seed: int) -> int:
        """Fold shuffled pieces, then merge them in a random tree."""
        chance = random.Random(seed)
        values = chance.sample(values, len(values))
        parts = [self.new()]
        for value in values:
            if chance.random() < 0.3:
                parts.append(self.new())
            self.fold(parts[-1], value)
        while len(parts) > 1:
            other = parts.pop(chance.randrange(len(parts)))
            self.merge(chance.choice(parts), other)
        return parts[0]

    def total(self, at: int) -> float:
        return exact.sum_final(self.words, self.floats, at, self.heap, self.scratch)

    def variance(self, at: int, scale: int = 0) -> tuple[float, bool]:
        if self.kind == "moments":
            return exact.moments_final(self.words, self.floats, at, self.heap, self.scratch)
        return exact.dmoments_final(self.words, at, scale, self.scratch)

    def count(self, at: int) -> int:
        return int(self.words[at])


# doubles


def check_sum(xs: list[float], seed: int) -> None:
    bench = Bench("sum")
    expected = bits(rounded(sum(map(Fraction, xs), Fraction(0))))
    for at in (bench.folded(xs), bench.tree(xs, seed)):
        assert bench.count(at) == len(xs)
        assert bits(bench.total(at)) == expected


@settings(max_examples=300, deadline=None)
@given(xs=doubles, seed=st.integers(0, 1 << 30))
def test_a_sum_is_the_rational_sum_rounded_once(xs, seed):
    """Folded in order, or in shuffled pieces merged in a random tree: the same bits, and +0.0 for zero."""
    check_sum(xs, seed)


@pytest.mark.parametrize("xs", CYCLES, ids=str)
def test_a_sum_survives_cancellation_halves_subnormals_and_overflow_on_the_way(xs):
    for seed in range(5):
        check_sum(xs, seed)


@settings(max_examples=300, deadline=None)
@given(
    high=st.floats(1.0, 2.0),
    side=st.sampled_from((1, -1)),
    half=st.sampled_from((2.0**-53, 2.0**-54, 1.5 * 2.0**-53, 0.0)),
    rest=st.sampled_from((0.0, 2.0**-107, -(2.0**-107), 2.0**-108, -(2.0**-160))),
)
def test_a_sum_is_rounded_once_at_ties_and_at_powers_of_two(high, side, half, rest):
    """Half a step above or below, with a rest too small for two doubles that decides."""
    for head in (high, 1.0, 2.0, 1.0 + 2.0**-52):
        check_sum([head, side * half + 0.0, rest], 0)


@pytest.mark.parametrize("spread", [3, 40, 300, 1000])
def test_sums_of_thousands_equal_fsum(spread):
    """`math.fsum` as the witness, over magnitudes from 10^-spread to 10^spread (bounded by the range of doubles)."""
    chance = random.Random(spread)
    limit = min(spread, 290)
    xs = [chance.uniform(-1, 1) * 10.0 ** chance.randint(-limit, limit) + 0.0 for _ in range(3000)]
    bench = Bench("sum")
    assert bits(bench.total(bench.folded(xs))) == bits(math.fsum(xs)) == bits(bench.total(bench.tree(xs, spread)))


def test_ordinary_numbers_never_leave_the_fast_path():
    """Ten thousand full-mantissa numbers between 10^-3 and 10^6 take nothing from the heap, nor do their squares."""
    chance = random.Random(7)
    xs = [chance.choice((1, -1)) * 10 ** chance.uniform(-3, 6) for _ in range(10_000)]
    for kind in ("sum", "moments"):
        bench = Bench(kind)
        at = bench.folded(xs)
        assert bench.heap_top[0] == 0
        assert bits(bench.total(at) if kind == "sum" else bench.variance(at)[0]) == bits(
            math.fsum(xs) if kind == "sum" else variance(list(map(Fraction, xs)))
        )


@pytest.mark.parametrize(
    ("xs", "expected"),
    [
        ([1.0, math.inf], math.inf),
        ([-math.inf, 1e308, 1e308], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.inf, math.nan, 1.0], math.nan),
        ([math.nan], math.nan),
        ([1e300, 1e-300, math.inf, 1e-300], math.inf),
    ],
)
def test_nan_and_infinities_decide_a_sum(xs, expected):
    for seed in range(8):
        bench = Bench("sum")
        for at in (bench.folded(xs), bench.tree(xs, seed)):
            assert bench.count(at) == len(xs)
            assert bits(bench.total(at)) == (NAN_BITS if math.isnan(expected) else bits(expected))


@settings(max_examples=300, deadline=None)
@given(xs=doubles, seed=st.integers(0, 1 << 30))
def test_a_variance_is_the_rational_variance_rounded_once(xs, seed):
    bench = Bench("moments")
    for at in (bench.folded(xs), bench.tree(xs, seed)):
        value, there = bench.variance(at)
        assert bench.count(at) == len(xs)
        assert there == (len(xs) >= 2)
        if there:
            assert bits(value) == bits(variance(list(map(Fraction, xs))))


@pytest.mark.parametrize("xs", [c for c in CYCLES if len(c) >= 2], ids=str)
def test_a_variance_survives_cancellation_subnormals_and_overflow_on_the_way(xs):
    for seed in range(5):
        bench = Bench("moments")
        assert bits(bench.variance(bench.tree(xs, seed))[0]) == bits(variance(list(map(Fraction, xs))))


@given(x=finite, n=st.integers(2, 70))
@settings(max_examples=200, deadline=None)
def test_equal_values_have_no_variance(x, n):
    """Exactly +0.0, however large or odd the value."""
    bench = Bench("moments")
    assert bits(bench.variance(bench.folded([x] * n))[0]) == 0


@pytest.mark.parametrize("xs", [[1.0, math.nan], [math.inf, 1.0], [math.inf, -math.inf, 1e-300]])
def test_a_variance_over_nan_or_infinity_is_nan(xs):
    bench = Bench("moments")
    value, there = bench.variance(bench.tree(xs, 1))
    assert there and bits(value) == NAN_BITS


@pytest.mark.parametrize("kind", ["sum", "moments"])
def test_partials_merge_across_arrays_and_heaps(kind):
    """Spilled or not on either side, the other in arrays of its own, which stay as they were."""
    wide, plain = [1e300, 1e-300, 1.0], [3.0, 0.1]
    for left, right in ((wide, wide), (wide, plain), (plain, wide), (plain, plain), ([], wide), (wide, [])):
        here, there = Bench(kind), Bench(kind)
        here.folded(wide)
        into, other = here.folded(left), there.folded(right)
        kept, heap = there.words.copy(), there.heap.copy()
        here.merge(into, other, there)
        values = list(map(Fraction, left + right))
        assert bits(here.total(into) if kind == "sum" else here.variance(into)[0]) == bits(
            rounded(sum(values)) if kind == "sum" else variance(values)
        )
        assert (there.words == kept).all() and (there.heap == heap).all()


@pytest.mark.parametrize("kind", ["sum", "moments"])
def test_digits_carry_before_they_overflow(kind):
    """A spilled partial doubled until it stands for 2^40 rows: every double digit still holds."""
    xs = [1e300, -3e-300, 1.0 / 3.0]
    bench = Bench(kind)
    at = bench.folded(xs)
    for _ in range(40):
        bench.top = at + bench.size
        copy = bench.new()
        bench.merge(copy, at)
        bench.merge(at, copy)
    bench.fold(at, xs[0])
    n, times = 3 * 2**40 + 1, 2**40
    values = list(map(Fraction, xs))
    total, squares = times * sum(values) + values[0], times * sum(v * v for v in values) + values[0] ** 2
    assert bench.count(at) == n
    if kind == "sum":
        assert bits(bench.total(at)) == bits(rounded(total))
    else:
        assert bits(bench.variance(at)[0]) == bits(rounded((n * squares - total**2) / (n * (n - 1))))


# integers


@settings(max_examples=300, deadline=None)
@given(values=int64s, scale=st.integers(0, 38), seed=st.integers(0, 1 << 30))
def test_an_integer_sum_is_pythons(values, scale, seed):
    bench = Bench("isum")
    total = sum(values)
    for at in (bench.folded(values), bench.tree(values, seed)):
        assert bench.count(at) == len(values)
        value, fits = exact.isum_to_i64(bench.words, at)
        assert fits == (-(1 << 63) <= total < 1 << 63)
        assert value == total or not fits
        low, high, fits = exact.isum_to_i128(bench.words, at)
        assert fits and (low, high) == halves(total)
        assert bits(exact.isum_to_double(bench.words, at, scale, bench.scratch)) == bits(rounded(Fraction(total, 10**scale)))


@pytest.mark.parametrize("total", [10**38 - 1, 10**38, 10**38 + 1, 2**127 - 1, -(2**127), 2**64, -(2**64), 2**53 + 1, -(2**54) - 2])
def test_a_128_bit_sum_knows_38_digits_and_rounds_at_any_size(total):
    bench = Bench("isum")
    for value in (total, -total) if total > -(2**127) else (total,):
        at = bench.new()
        bench.words[at + 1], bench.words[at + 2] = halves(value)
        low, high, fits = exact.isum_to_i128(bench.words, at)
        assert (low, high) == halves(value) and fits == (abs(value) < 10**38)
        for scale in (0, 1, 22, 23, 38):
            assert bits(exact.isum_to_double(bench.words, at, scale, bench.scratch)) == bits(rounded(Fraction(value, 10**scale)))


@pytest.mark.parametrize("kind", ["dsum", "dmoments"])
@settings(max_examples=200, deadline=None)
@given(values=wides, scale=st.integers(0, 38), seed=st.integers(0, 1 << 30))
def test_a_wide_integer_sum_is_pythons(kind, values, scale, seed):
    bench = Bench(kind)
    total = sum(values)
    for at in (bench.folded(values), bench.tree(values, seed)):
        assert bench.count(at) == len(values)
        low, high, fits = exact.dsum_to_i128(bench.words, at, bench.scratch)
        assert fits == (abs(total) < 10**38)
        assert (low, high) == halves(total) or not fits
        assert bits(exact.dsum_to_double(bench.words, at, scale, bench.scratch)) == bits(rounded(Fraction(total, 10**scale)))


@settings(max_examples=300, deadline=None)
@given(values=st.one_of(wides, int64s), scale=st.integers(0, 38), seed=st.integers(0, 1 << 30))
def test_a_wide_integer_variance_is_the_rational_variance_rounded_once(values, scale, seed):
    bench = Bench("dmoments")
    for at in (bench.folded(values), bench.tree(values, seed)):
        value, there = bench.variance(at, scale)
        assert there == (len(values) >= 2)
        if there:
            assert bits(value) == bits(variance([Fraction(v, 10**scale) for v in values]))


@pytest.mark.parametrize("values", [[BIG, -BIG, 7], [-BIG, -BIG], [5, 5, 5], [-(2**127), 2**127 - 1, -(2**127)]])
def test_wide_digits_carry_before_they_overflow(values):
    """Doubled until they stand for 2^36 rows and more, where the divisors no longer fit 32 bits."""
    bench = Bench("dmoments")
    at = bench.folded(values)
    for _ in range(36):
        bench.top = at + bench.size
        copy = bench.new()
        bench.merge(copy, at)
        bench.merge(at, copy)
    bench.fold(at, values[0])
    n, times = len(values) * 2**36 + 1, 2**36
    total, squares = times * sum(values) + values[0], times * sum(v * v for v in values) + values[0] ** 2
    assert bits(bench.variance(at, 2)[0]) == bits(rounded(Fraction(n * squares - total**2, n * (n - 1) * 10**4)))
    assert bits(exact.dsum_to_double(bench.words, at, 2, bench.scratch)) == bits(rounded(Fraction(total, 100)))
