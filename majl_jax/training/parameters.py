"""Rules on parameter paths: what trains, what is frozen, what one stage hands to the next."""

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import optax

Rules = Sequence[tuple[str, bool]]


def path_of(key_path: Sequence[Any]) -> str:
    """A JAX key path as text: the keys joined by slashes."""
    return jax.tree_util.keystr(tuple(key_path), simple=True, separator="/")


def trainable_mask(params: Any, rules: Rules) -> Any:
    """A tree of booleans like `params`: the first pattern that matches a leaf's path decides."""
    unused = {pattern for pattern, _ in rules}

    def decide(key_path, _):
        path = path_of(key_path)
        matching = [(p, wanted) for p, wanted in rules if re.fullmatch(p, path)]
        if not matching:
            raise ValueError(
                f"no pattern of trainable matches the parameter {path!r} (patterns: "
                f"{[p for p, _ in rules]}): add one, e.g. ('.*', True) as the last"
            )
        unused.difference_update(p for p, _ in matching)
        return matching[0][1]

    mask = jax.tree_util.tree_map_with_path(decide, params)
    if unused:
        paths = [path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(params)]
        raise ValueError(
            f"patterns of trainable that match no parameter: {sorted(unused)}; the parameters are "
            f"{paths[:20]}{' ...' if len(paths) > 20 else ''}"
        )
    if not any(jax.tree.leaves(mask)):
        raise ValueError(f"trainable freezes every parameter: {tuple(rules)}")
    return mask


def only_trainable(
    transformation: optax.GradientTransformation, mask: Any
) -> optax.GradientTransformation:
    """The transformation on trainable leaves; frozen ones have no update, moments or norm."""
    if all(jax.tree.leaves(mask)):
        return transformation
    labels = jax.tree.map(lambda wanted: "trained" if wanted else "frozen", mask)
    return optax.partition({"trained": transformation, "frozen": optax.set_to_zero()}, labels)


def stop_frozen(params: Any, mask: Any) -> Any:
    """The same parameters; no gradient flows to frozen ones, so none is computed."""
    return jax.tree.map(
        lambda leaf, wanted: leaf if wanted else jax.lax.stop_gradient(leaf), params, mask
    )


Tree = TypeVar("Tree")


def fingerprint(tree: Any) -> dict[str, int]:
    """The CRC-32 of every leaf's bytes, by path: any single flipped bit changes it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        path_of(path): (
            zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data)
            if np.ndim(leaf)
            else zlib.crc32(np.asarray(leaf).tobytes())
        )
        for path, leaf in leaves
    }


def partial_restore(
    target: Tree, source: Mapping[str, Any], rules: Sequence[tuple[str, str | None]]
) -> Tree:
    """Fill `target` leaf by leaf from `source` by rules (pattern of a target path, source path).

    The first matching rule decides: the source path may use groups of the pattern, e.g.
    ("params/encoder/(.*)", r"params/body/\\1"); None instead of it keeps the fresh value. Every
    leaf needs a rule, every rule a leaf, every source path an array of the same shape; anything
    else is an error.
    """
    stored = {path_of(p): v for p, v in jax.tree_util.tree_leaves_with_path(source)}
    unused = {pattern for pattern, _ in rules}

    def fill(key_path, leaf):
        path = path_of(key_path)
        for pattern, replacement in rules:
            match = re.fullmatch(pattern, path)
            if match is None:
                continue
            unused.discard(pattern)
            if replacement is None:
                return leaf
            name = match.expand(replacement)
            if name not in stored:
                raise ValueError(
                    f"partial restore: {path!r} should come from {name!r}, which the source does"
                    f" not have; it has {sorted(stored)[:20]}"
                )
            if np.shape(stored[name]) != np.shape(leaf):
                raise ValueError(
                    f"partial restore: {path!r} has shape {np.shape(leaf)}, but {name!r} in the"
                    f" source has {np.shape(stored[name])}"
                )
            return np.asarray(stored[name], dtype=leaf.dtype)
        raise ValueError(
            f"partial restore: no rule fills {path!r}; add one (None keeps the fresh value)"
        )

    filled = jax.tree_util.tree_map_with_path(fill, target)
    if unused:
        raise ValueError(f"partial restore: rules that match nothing: {sorted(unused)}")
    return filled
