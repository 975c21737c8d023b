"""Deal the training samples out to the nodes: disjoint, as many each as asked for, the same for the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError

if TYPE_CHECKING:
    from .federation import Split

Array = np.ndarray[Any, np.dtype[Any]]

SEED_STREAM = 0x5045  # keeps these draws apart from every other use of the federation's seed
VALIDATION_STREAM = 0x5641


def kept_back(samples: int, validation: int, seed: int) -> tuple[Array, Array]:
    """Return the indices of the samples that may be dealt out, and of the `validation` ones that no node may hold; both
    rising. Raises DataError if none is left to deal out."""
    if validation >= samples:
        raise DataError(f"[data] validation = {validation}, but the data set has {samples} to train on; expected fewer")
    order = np.random.default_rng([seed, VALIDATION_STREAM]).permutation(samples)
    return np.sort(order[: samples - validation]), np.sort(order[samples - validation :])


def partition(
    labels: Array,
    nodes: int,
    samples_per_node: int,
    split: Split,
    seed: int,
    *,
    alpha: float = 0.3,
    classes_per_node: int = 2,
) -> list[Array]:
    """Return for each node the indices of its samples, in random order.

    `iid`: any sample. `dirichlet`: each node's class shares are drawn with concentration `alpha`. `shards`: each node
    has `classes_per_node` classes. What a scarce class lacks is made up from the node's other classes, then from the
    class with most left. Raises DataError if there are too few samples or classes.
    """
    wanted = nodes * samples_per_node
    if wanted > len(labels):
        raise DataError(
            f"{nodes} nodes × {samples_per_node} samples are {wanted}, but the data set has {len(labels)} to train on; "
            f"set samples_per_node to {len(labels) // nodes} or less"
        )
    rng = np.random.default_rng([seed, SEED_STREAM])
    if split == "iid":
        order = rng.permutation(len(labels))[:wanted]
        return [np.asarray(part) for part in order.reshape(nodes, samples_per_node)]
    present = np.unique(labels)
    pools = [rng.permutation(np.flatnonzero(labels == label)) for label in present]
    if split == "dirichlet":
        shares = rng.dirichlet(np.full(len(present), alpha), nodes)
    else:
        shares = _class_shares(rng, nodes, len(present), classes_per_node)
    counts = _affordable(shares, samples_per_node, np.array([len(pool) for pool in pools]))
    cuts = [np.split(pool, np.cumsum(column)) for pool, column in zip(pools, counts.T, strict=True)]
    return [rng.permutation(np.concatenate([cut[node] for cut in cuts])) for node in range(nodes)]


def owned(owners: Array, nodes: int, samples_per_node: int) -> list[Array]:
    """Return for each node the indices of its own first samples; `owners` are the nodes' numbers, by sample.

    Raises DataError if a node has too few.
    """
    parts = [np.flatnonzero(owners == node)[:samples_per_node] for node in range(nodes)]
    for node, part in enumerate(parts):
        if len(part) < samples_per_node:
            raise DataError(
                f"owner_train gives node {node} {len(part)} samples; expected samples_per_node = {samples_per_node} "
                f"for each of the {nodes} nodes, counted from 0"
            )
    return parts


def _class_shares(rng: np.random.Generator, nodes: int, classes: int, each: int) -> Array:
    """Return [nodes, classes] shares: `each` classes a node, every class given out about equally often."""
    if each > classes:
        raise DataError(f"classes_per_node is {each}, but the data set has {classes} classes")
    shares = np.zeros((nodes, classes))
    given = np.zeros(classes)
    for node in range(nodes):
        chosen = np.lexsort((rng.random(classes), given))[:each]  # those given out least; ties by lot
        given[chosen] += 1
        shares[node, chosen] = 1 / each
    return shares


def _affordable(shares: Array, total: int, sizes: Array) -> Array:
    """Return [nodes, classes] sample counts near `shares` of `total`; rows add up to `total`, columns fit `sizes`."""
    wanted = shares * total
    scarce = np.minimum(1, sizes / np.maximum(wanted.sum(axis=0), 1))
    counts: Array = np.floor(wanted * scarce + 1e-9).astype(np.int64)
    for row, share in zip(counts, shares, strict=True):
        while lacking := int(total - row.sum()):
            left = sizes - counts.sum(axis=0)
            own = np.where(share > 0, left, 0)
            best = int(np.argmax(own if own.any() else left))
            row[best] += min(lacking, int(left[best]))
    return counts
