"""The smallest set of RTIG T047 topics that reaches exactly the chosen displays, and never one more.

Topics are a tree: locality, cluster, stop, vendor, device; a shorter topic reaches everything below it. A node is
*pure* when every display we know below it is chosen for the same text; only pure nodes may be used, and of those only
the shortest matter. A display that stands at one place has one shortest pure node, which is therefore needed: where all
do, the answer is found in one pass, O(displays). A display with several localities, clusters or stops may be reached by
several nodes, and then it is a set cover: exact while `EXACT_MAX` nodes compete, else greedy, which reaches the same
displays and may take a topic or two more.

Nodes named `null` are unknown places, not places: they are never addressed as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

EXACT_MAX: Final = 12

Levels: TypeAlias = tuple[str, ...]
Addresses: TypeAlias = tuple[Levels, ...]
"""All places of one display in the tree, five levels each; the first is where it is spoken to alone."""


def cover(chosen: Iterable[Addresses], everyone: Iterable[Addresses]) -> list[Levels]:
    """Levels of the topics, sorted. Every display of `chosen` is below one of them, no other of `everyone` is."""
    wanted = set(chosen)
    totals: dict[Levels, int] = {}
    hits: dict[Levels, int] = {}
    for addresses in set(everyone) | wanted:
        for node in {address[:depth] for address in addresses for depth in range(1, 5)}:
            totals[node] = totals.get(node, 0) + 1
            hits[node] = hits.get(node, 0) + (addresses in wanted)
    found: set[Levels] = set()
    open_: dict[Addresses, set[Levels]] = {}
    for addresses in wanted:
        nodes = {best for address in addresses if (best := _shortest(address, totals, hits)) is not None}
        if len(nodes) > 1:
            open_[addresses] = nodes
        else:
            found |= nodes or {tuple(addresses[0])}
    left = {addresses: nodes for addresses, nodes in open_.items() if not nodes & found}
    return sorted(found | _fewest(left))


def _shortest(address: Levels, totals: Mapping[Levels, int], hits: Mapping[Levels, int]) -> Levels | None:
    """The shortest pure node above an address that serves more than this display."""
    for depth in range(1, 5):
        node = address[:depth]
        if "null" not in node and 1 < totals[node] == hits[node]:
            return tuple(node)
    return None


def _fewest(left: Mapping[Addresses, set[Levels]]) -> set[Levels]:
    """The fewest nodes of which each display has one."""
    needs = {frozenset(nodes) for nodes in left.values()}
    nodes = sorted({node for need in needs for node in need})
    if len(nodes) <= EXACT_MAX:
        for size in range(len(nodes) + 1):
            for few in itertools.combinations(nodes, size):
                if all(not need.isdisjoint(few) for need in needs):
                    return set(few)
    found: set[Levels] = set()
    while needs:
        best = max(nodes, key=lambda node: sum(node in need for need in needs))
        found.add(best)
        needs = {need for need in needs if best not in need}
    return found
