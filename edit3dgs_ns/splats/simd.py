"""Vectors of 16 numbers for Numba kernels: a row of a tile at a time, spelled out.

A `Lanes` value lives in registers: LLVM maps <16 x float> to one AVX-512 register, two of AVX, four of SSE or
NEON; no compiler and no instruction set is required. float64 gives <16 x double>.

Use inside kernels: `load(array, i)`, `store(array, i, v)`, `splat(x)`, `lane_numbers(x)` (0 to 15 in the type
of x), `+ - * / +=`, `smaller`, `absolute`, `where_less(a, b, x, y)` (x where a < b, else y),
`total(v)` and `store_totals` (always summed in the same order), `any_positive(v)`, and `exp_of_minus_8(u)`. Also `element` and
`prefetch`. Indices count elements of a contiguous 1D array and are not checked.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic as _intrinsic
from numba.extending import lower_builtin, models, register_model

LANES = 16

intrinsic: Any = _intrinsic
"""Untyped: to a type checker, Numba's own would keep the typing context among the arguments."""


class Lanes(types.Type):
    """Numba type of LANES numbers of one float type."""

    def __init__(self, dtype: types.Float):
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


F32, F64 = Lanes(types.float32), Lanes(types.float64)
_OF = {types.float32: F32, types.float64: F64}


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Lanes):
        element = ir.FloatType() if fe_type.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, fe_type, ir.VectorType(element, LANES))


def _arithmetic(function: Callable, instruction: str) -> None:
    class Template(ConcreteTemplate):
        cases = [signature(v, v, v) for v in (F32, F64)]  # noqa: RUF012

    infer_global(function)(Template)
    for v in (F32, F64):

        @lower_builtin(function, v, v)
        def lower(context, builder, sig, args):
            return getattr(builder, instruction)(*args)


for _function, _instruction in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
    (operator.iadd, "fadd"),
):  # fmt: skip
    _arithmetic(_function, _instruction)


def _constant(vector: ir.VectorType, value: float | list[float]) -> ir.Constant:
    values = value if isinstance(value, list) else [value] * LANES
    if isinstance(vector.element, ir.FloatType):
        values = [float(np.float32(x)) for x in values]
    return ir.Constant(vector, [ir.Constant(vector.element, x) for x in values])


def _broadcast(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


@intrinsic
def splat(typingctx, x):
    """The same number in all lanes."""
    out = _OF[x]

    def codegen(context, builder, sig, args):
        return _broadcast(builder, args[0], context.get_value_type(sig.return_type))

    return out(x), codegen


@intrinsic
def lane_numbers(typingctx, x):
    """0, 1, ... 15, in the type of `x`."""
    out = _OF[x]

    def codegen(context, builder, sig, args):
        return _constant(context.get_value_type(sig.return_type), [float(i) for i in range(LANES)])

    return out(x), codegen


def _pointer(
    context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: ir.VectorType
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic
def element(typingctx, array, index):
    """array[index]: one number, of an array that is read only here."""

    def codegen(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), codegen


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of array[index], which need not exist."""

    def codegen(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0"
        )
        flags = [ir.Constant(word, value) for value in (0, 3, 1)]  # to read, keep in all caches, data
        builder.call(function, [builder.bitcast(builder.gep(data, [args[1]]), byte), *flags])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def cache_line_start(typingctx, array):
    """Index of the first element of a 1D array that begins a cache line (64 bytes).

    What Numba allocates begins anywhere; vectors that straddle two lines take twice as long.
    """

    def codegen(context, builder, sig, args):
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        word = context.get_value_type(types.intp)
        missing = builder.and_(builder.neg(builder.ptrtoint(data, word)), ir.Constant(word, 63))
        return builder.udiv(missing, ir.Constant(word, sig.args[0].dtype.bitwidth // 8))

    return types.intp(array), codegen


@intrinsic
def load(typingctx, array, index):
    """array[index : index + 16]."""
    out = _OF[array.dtype]

    def codegen(context, builder, sig, args):
        vector = context.get_value_type(sig.return_type)
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], vector)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return out(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """array[index : index + 16] = value."""

    def codegen(context, builder, sig, args):
        vector = context.get_value_type(sig.args[2])
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], vector)
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def smaller(typingctx, a, b):
    """min(a, b), lane by lane."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[0], args[1])

    return a(a, a), codegen


@intrinsic
def where_less(typingctx, a, b, x, y):
    """x where a < b, else y."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return a(a, a, a, a), codegen


@intrinsic
def absolute(typingctx, a):
    """|a|, lane by lane."""

    def codegen(context, builder, sig, args):
        zero = _constant(args[0].type, 0.0)
        return builder.select(builder.fcmp_ordered("<", args[0], zero), builder.fsub(zero, args[0]), args[0])

    return a(a), codegen


@intrinsic
def any_positive(typingctx, a):
    """Whether any lane is above 0."""

    def codegen(context, builder, sig, args):
        mask = builder.fcmp_ordered(">", args[0], _constant(args[0].type, 0.0))
        bits = builder.bitcast(mask, ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(a), codegen


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    index = ir.VectorType(ir.IntType(32), len(lanes))
    return builder.shuffle_vector(a, b, ir.Constant(index, lanes))


def _folded(builder: Any, value: Any, width: int) -> Any:
    """Add the upper half to the lower until `width` lanes are left."""
    while (lanes := value.type.count) > width:
        halves = (list(range(lanes // 2)), list(range(lanes // 2, lanes)))
        value = builder.fadd(*(_shuffle(builder, value, value, half) for half in halves))
    return value


@intrinsic
def total(typingctx, a):
    """Sum of the lanes, pairwise: 8 + 8, 4 + 4, 2 + 2, 1 + 1."""

    def codegen(context, builder, sig, args):
        one = _folded(builder, args[0], 1)
        return builder.extract_element(one, ir.Constant(ir.IntType(32), 0))

    return a.dtype(a), codegen


def _combine(builder: Any, a: Any, b: Any, width: int) -> Any:
    """Fold groups of 2 `width` lanes of two vectors into groups of `width`: a's first, then b's, group by group."""
    lanes = a.type.count
    low: list[int] = []
    high: list[int] = []
    for group in range(0, lanes, 2 * width):
        for offset in (group, lanes + group):
            low += range(offset, offset + width)
            high += range(offset + width, offset + 2 * width)
    return builder.fadd(*(_shuffle(builder, a, b, picked) for picked in (low, high)))


@intrinsic(prefer_literal=True)
def store_totals(typingctx, array, index, vectors, count):
    """array[index : index + count] = the sums of the vectors (a tuple of at most 16), each as by `total`; 0 beyond them.

    `count` is a constant. Cheaper than one `total` after the other.
    """
    stored = count.literal_value

    def codegen(context, builder, sig, args):
        given = [builder.extract_value(args[2], i) for i in range(sig.args[2].count)]
        rows = given + [ir.Constant(given[0].type, None)] * (LANES - len(given))
        width = LANES // 2
        while width:
            # Far ones are combined first: so lane i of the result is the sum of vector i.
            half = len(rows) // 2
            rows = [_combine(builder, rows[i], rows[i + half], width) for i in range(half)]
            width //= 2
        first = _shuffle(builder, rows[0], rows[0], list(range(stored)))
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1], first.type)
        builder.store(first, pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors, count), codegen


def _minimax_exp(order: int, limit: float) -> list[float]:
    """Coefficients, lowest first, of a near-minimax polynomial of exp(-u) on [0, limit] (Chebyshev
    interpolation)."""
    nodes = limit / 2 * (1 + np.cos(np.pi * (np.arange(order + 1) + 0.5) / (order + 1)))
    fit = np.polynomial.Polynomial.fit(nodes, np.exp(-nodes), order)
    return [float(x) for x in fit.convert().coef]


def _polynomial(builder: Any, x: Any, coefficients: list[Any]) -> Any:
    """sum_k coefficients[k] x^k, neighbours first (Estrin): fewer steps that wait for each other than Horner's rule."""
    terms, power = coefficients, x
    while len(terms) > 1:
        pairs = [
            builder.fadd(builder.fmul(b, power), a) for a, b in zip(terms[::2], terms[1::2], strict=False)
        ]
        terms = pairs + terms[2 * len(pairs) :]
        power = builder.fmul(power, power)
    return terms[0]


EXP_LIMIT = 0.75
"""Largest u: exp(-8 u) is 0.0025 there, so that no opacity up to 1.58 reaches the cut-off 1/255 beyond it."""


@intrinsic
def exp_of_minus_8(typingctx, u):
    """exp(-8 u) for u in [0, EXP_LIMIT], as a polynomial's eighth power; u outside is clamped.

    Relative error 2e-6 in float32; in float64 the polynomial is exp's series to rounding (6e-16).
    """

    def codegen(context, builder, sig, args):
        vector = args[0].type
        if isinstance(vector.element, ir.FloatType):
            coefficients = _minimax_exp(5, EXP_LIMIT)
        else:
            coefficients = [(-1.0) ** k / math.factorial(k) for k in range(18)]
        x = args[0]
        for bound, comparison in ((0.0, ">"), (EXP_LIMIT, "<")):
            limit = _constant(vector, bound)
            x = builder.select(builder.fcmp_ordered(comparison, x, limit), x, limit)
        value = _polynomial(builder, x, [_constant(vector, c) for c in coefficients])
        for _ in range(3):
            value = builder.fmul(value, value)
        return value

    return u(u), codegen
