"""Work of a program, counted in its trace: products and transforms, and what they move.

Loops count as often as they run, a branch by platform as that of the platform, any other branch as
the dearest. What stands between products is taken as computed along with them, as XLA mostly fuses
it: so bytes are those of the operands and results of products, transforms, sorts and sums, and what
is taken out of arrays or put into them. What is the same in all runs of a loop is read once. It is
a lower bound, as far as fusions keep nothing else.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from jax.extend.core import Literal

# Times the multiplications of real numbers.
_COMPLEX = 4
# All of their operands and results are moved.
_WHOLE = {"sort", "top_k", "cumsum", "reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin"}
# Only what is taken out, the result, is read and written; of what is put in, that operand.
_TAKEN = {"gather", "dynamic_slice"}
_PUT = {"dynamic_update_slice": 1, "scatter": 2, "scatter-add": 2}


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs by type and precision of the products, `bfloat16`, `float32` or `highest`; of Fourier
    transforms, which run elsewhere; and bytes.
    """

    products: dict[str, float] = dataclasses.field(default_factory=dict)
    transforms: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        names = {**self.products, **other.products}
        products = {k: self.products.get(k, 0.0) + other.products.get(k, 0.0) for k in names}
        return Work(products, self.transforms + other.transforms, self.bytes + other.bytes)

    def times(self, count: float) -> "Work":
        """The same, so often."""
        products = {name: count * flops for name, flops in self.products.items()}
        return Work(products, count * self.transforms, count * self.bytes)

    @property
    def flops(self) -> float:
        """Of all."""
        return sum(self.products.values()) + self.transforms


def work(jaxpr: Any, platform: str, read: frozenset = frozenset()) -> Work:
    """The work of a jaxpr on one device of a platform, "cuda", "tpu" or "cpu".

    read: variables of it that are counted already.
    """
    total = Work()
    for equation in jaxpr.eqns:
        total += _of(equation, platform, read)
    return total


def equations(jaxpr: Any) -> int:
    """How many equations a jaxpr has, those of inner ones among them."""
    return sum(
        1 + sum(equations(inner) for inner in _inner(equation.params)) for equation in jaxpr.eqns
    )


def _of(equation: Any, platform: str, read: frozenset) -> Work:
    name, parameters = equation.primitive.name, equation.params
    if name == "cond":
        return _branch(equation, platform, read)
    if name == "scan":
        return _loop(equation, platform, read)
    count = _FLOPS.get(name)
    if count is not None:
        return Work({_kind(equation): count(equation)}, bytes=_bytes(equation, read))
    if name == "fft":
        size = math.prod(parameters["fft_lengths"])
        longer = max(equation.invars[0].aval.size, equation.outvars[0].aval.size)
        # A transform of real numbers is half of one of complex ones.
        kind = parameters["fft_type"]
        real = 0.5 if "RFFT" in getattr(kind, "name", str(kind)) else 1.0
        flops = real * 5 * longer * math.log2(size)
        return Work(transforms=flops, bytes=_bytes(equation, read))
    total = Work(bytes=_moved(equation, read))
    for inner in _inner(parameters):
        total += work(inner, platform, _same(equation.invars, inner.invars, read))
    return total


def _branch(equation: Any, platform: str, read: frozenset) -> Work:
    branches = [
        work(branch.jaxpr, platform, _same(equation.invars[1:], branch.jaxpr.invars, read))
        for branch in equation.params["branches"]
    ]
    of_platforms = equation.params.get("branches_platforms")
    if of_platforms is None:
        return max(branches, key=lambda one: one.flops)
    for platforms, branch in zip(of_platforms, branches, strict=True):
        if platforms is None or platform in platforms:
            return branch
    raise ValueError(f"no branch for {platform} among {of_platforms}")


def _loop(equation: Any, platform: str, read: frozenset) -> Work:
    inner, count = equation.params["jaxpr"].jaxpr, equation.params["num_consts"]
    constants = inner.invars[:count]
    each = work(inner, platform, frozenset(constants)).times(equation.params["length"])
    known = _same(equation.invars, inner.invars, read)
    once = sum(_size(place.aval) for place in constants if place not in known)
    return each + Work(bytes=float(once))


def _same(outside: Any, inside: Any, read: frozenset) -> frozenset:
    """The variables of an inner jaxpr that are those that are counted already outside of it."""
    if len(outside) != len(inside):
        return frozenset()
    pairs = zip(outside, inside, strict=True)
    return frozenset(within for of, within in pairs if not isinstance(of, Literal) and of in read)


def _inner(parameters: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for value in parameters.values():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval
    each = math.prod(left.shape[axis] for axis in contracted)
    factor = _COMPLEX if left.dtype.kind == "c" else 1
    return 2.0 * factor * equation.outvars[0].aval.size * each


def _convolution(equation: Any) -> float:
    """Of a transposed convolution and of a gradient without the zeros between its inputs."""
    parameters = equation.params
    kernel, out = equation.invars[1].aval, equation.outvars[0].aval
    of_out = parameters["dimension_numbers"].rhs_spec[0]
    each = kernel.size / kernel.shape[of_out]
    return 2.0 * out.size * each / math.prod(parameters["lhs_dilation"])


_FLOPS: dict[str, Callable[[Any], float]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
}


def _kind(equation: Any) -> str:
    dtype = equation.invars[0].aval.dtype
    if dtype.itemsize == 2:
        return "bfloat16"
    precision = str(equation.params["precision"]).upper()
    return "highest" if "HIGHEST" in precision else "float32"


def _bytes(equation: Any, read: frozenset) -> float:
    """Of the operands that are not counted yet, and of the results."""
    new = [one for one in equation.invars if isinstance(one, Literal) or one not in read]
    return float(sum(_size(place.aval) for place in [*new, *equation.outvars]))


def _moved(equation: Any, read: frozenset) -> float:
    name = equation.primitive.name
    if name in _WHOLE:
        return _bytes(equation, read)
    if name in _TAKEN:
        return 2.0 * _size(equation.outvars[0].aval)
    if name in _PUT:
        return 2.0 * _size(equation.invars[_PUT[name]].aval)
    return 0.0


def _size(aval: Any) -> int:
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return getattr(aval, "size", 0) * itemsize


def size(tree: Any) -> int:
    """Bytes of the arrays of a tree, or of their shapes; a key of randomness is two words."""
    import jax
    import numpy as np

    return sum(
        8
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf.size * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )
