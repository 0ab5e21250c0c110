"""Functions of stacks of matrices that are divided over the devices of a mesh.

Inside `shard_map`, the devices exchange the parts of matrices that they have for whole matrices,
call the function for these, and exchange the results back. The exchanges and the calls are the same
on all devices. So each device has equally many matrices of one shape, and places that remain have
zeros. Of `n` matrices on `d` devices, `n // d` of a kind go to each device; the remaining ones of
several kinds share one more place on each device.

A large matrix that is the only one of its shape, and much longer than wide, is divided itself, see
`lengthwise`.
"""

import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AbstractMesh, PartitionSpec

from gradtx._devices.captured import captured, with_captured
from gradtx._devices.exchange import Division, shared_devices, widened
from gradtx._devices.lengthwise import is_divided_itself, lengthwise
from gradtx._devices.types import Axes, Column, axes_of, explicit_axes, partition_spec


class Parts(NamedTuple):
    """The division of the matrices of a leaf, or of their slots, before the exchange.

    Attributes:
      counts: the lengths on this device of the axes that index matrices.
      own: the mesh axes that divide each axis of a matrix.
      division: the division of the matrices among the devices that have parts of them.
    """

    counts: tuple[int, ...]
    own: Axes
    division: Division


class Kind(NamedTuple):
    """Leaves whose matrices are exchanged together.

    Attributes:
      leaves: the leaves' numbers.
      parts: for each column, how the matrices are divided.
      rest: the number of matrices that remain if each device has equally many.
    """

    leaves: list[int]
    parts: list[Parts]
    rest: int


def divided(
    function: Callable[..., Sequence[Array]],
    given: Sequence[Column],
    results: Sequence[Column],
    groups: Sequence[list[int]],
    mesh: AbstractMesh,
) -> list[dict[int, Array]]:
    """Calls a function of stacks once for each group of leaves; see `stacks.map_stacks`.

    Args:
      function: the function.
      given: the columns of arguments.
      results: the columns of results.
      groups: the numbers of leaves that share a stack.
      mesh: the mesh of the arguments.

    Raises:
      ValueError: an argument for a leaf is divided along other matrices than the leaf.
    """
    columns, names = (*given, *results), explicit_axes(mesh)
    alone = [group[0] for group in groups if is_divided_itself(given[0], group)]
    if alone:
        rest = [group for group in groups if group[0] not in alone]
        none = [dict[int, Array]() for _ in results]
        found = divided(function, given, results, rest, mesh) if rest else none
        for i in alone:
            own = lengthwise(function, given, results, i, mesh)
            for column, x in zip(found, own, strict=True):
                column[i] = x
        return found
    sizes = {name: mesh.shape[name] for name in names}
    kinds = [_kinds(columns, group, sizes) for group in groups]
    mine = [i for group in groups for i in group]
    specs = [{i: partition_spec(axes_of(c.arrays[i])) for i in mine} for c in columns]
    functions = (function, [c.after for c in columns])

    def on_device(shared: list[Array], arrays: list[dict[int, Array]]) -> list[dict[int, Array]]:
        function, after = with_captured(functions, shared)
        exchange = Exchange(
            kinds, [c._replace(after=f) for c, f in zip(columns, after, strict=True)]
        )
        stacks = [exchange.inward(number, mine) for number, mine in enumerate(arrays)]
        made = [function(*of_group) for of_group in zip(*stacks, strict=True)]
        return [
            exchange.outward(number, of_result)
            for number, of_result in enumerate(zip(*made, strict=True), len(given))
        ]

    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), specs[: len(given)]),
        out_specs=specs[len(given) :],
        axis_names=set(names),
        check_vma=False,
    )(captured(functions), [{i: column.arrays[i] for i in mine} for column in given])


class Exchange:
    """The exchange of matrices before and after the function is called.

    A stack has the matrices of one kind after another, and then places that kinds share.

    Args:
      groups: for each stack, its kinds of leaves.
      columns: the columns of arguments and results.
    """

    def __init__(self, groups: Sequence[Sequence[Kind]], columns: Sequence[Column]):
        self.groups, self.columns = groups, columns
        self.kinds = [(g, kind) for g, kinds in enumerate(groups) for kind in kinds]
        alike: dict[Hashable, list[int]] = {}
        for number, (_, kind) in enumerate(self.kinds):
            if kind.rest:
                first = kind.leaves[0]
                dtypes = (column.arrays[first].dtype for column in columns)
                ways = ((tuple(p.division.sizes), p.division.used) for p in kind.parts)
                alike.setdefault((*dtypes, *ways), []).append(number)
        self.places: list[list[tuple[int, int]]] = []
        for numbers in alike.values():
            numbers = sorted(numbers, key=lambda n: math.prod(self._place(n).shape), reverse=True)
            devices = self.kinds[numbers[0]][1].parts[0].division.devices
            shared = shared_devices([self.kinds[n][1].rest for n in numbers], devices)
            self.places += [[(numbers[k], first) for k, first in place] for place in shared]

    def inward(self, c: int, arrays: Mapping[int, Array]) -> list[Array]:
        """Returns this device's stack of whole matrices for each group.

        Args:
          c: the number of the column.
          arrays: this device's parts of its arrays.
        """
        column, stacks = self.columns[c], [list[Array]() for _ in self.groups]
        rest: dict[int, Array] = {}
        for number, (g, kind) in enumerate(self.kinds):
            layout, (_, own, division) = self._place(number, c).layout, kind.parts[c]
            x = _joined([layout.separate(arrays[i]) for i in kind.leaves])
            even = len(x) - kind.rest
            rest[number] = x[even:]
            if even:
                whole = division.join(division.gather(x[:even]), own)
                stacks[g].append(column.stack(kind.leaves[0], whole))
        for place in self.places:
            division = self.kinds[place[0][0]][1].parts[c].division
            rows = [_flat(rest[n], 1) for n, _ in place]
            width = max(x.shape[1] for x in rows)
            missing = division.devices - sum(map(len, rows))
            every = _joined([widened(x, width) for x in rows])
            buffer = division.gather(jnp.pad(every, ((0, missing), (0, 0))))
            for g, mine in _by_group(place, self.kinds):
                rows = []
                for number, first in mine:
                    kind, parts = self.kinds[number][1], rest[number].shape[1:]
                    x = buffer[:, :, : math.prod(parts)].reshape(len(buffer), 1, *parts)
                    x = column.stack(kind.leaves[0], division.join(x, kind.parts[c].own))
                    rows.append(jnp.where(division.has(first, kind.rest), x, 0))
                stacks[g].append(functools.reduce(lax.add, rows))
        return [_joined(stack) for stack in stacks]

    def outward(self, c: int, stacks: Sequence[Array]) -> dict[int, Array]:
        """Returns this device's parts of a result, by the leaves' numbers.

        Args:
          c: the number of the result's column.
          stacks: this device's results for each group.
        """
        column, used = self.columns[c], [0] * len(stacks)
        parts = [list[Array]() for _ in self.kinds]

        def of(number: int, first: int, count: int) -> Array:
            """Returns the parts of matrices of a kind, from one place in its stack on."""
            g, kind = self.kinds[number]
            x = column.unstack(kind.leaves[0], stacks[g][first : first + count])
            return kind.parts[c].division.cut(x, kind.parts[c].own)

        for number, (g, kind) in enumerate(self.kinds):
            counts, _, division = kind.parts[c]
            if each := math.prod(counts) * len(kind.leaves) // division.devices:
                parts[number].append(division.scatter(of(number, used[g], each)))
                used[g] += each
        for place in self.places:
            mine = {number: of(number, used[self.kinds[number][0]], 1) for number, _ in place}
            for g in {self.kinds[number][0] for number in mine}:
                used[g] += 1
            width = max(math.prod(x.shape[2:]) for x in mine.values())
            division = self.kinds[place[0][0]][1].parts[c].division
            rows = [
                jnp.where(
                    division.has(first, self.kinds[number][1].rest),
                    widened(_flat(mine[number], 2), width),
                    0,
                )
                for number, first in place
            ]
            rows = division.scatter(functools.reduce(lax.add, rows))
            for number, first in place:
                shape = mine[number].shape[2:]
                x = rows[first : first + self.kinds[number][1].rest, : math.prod(shape)]
                parts[number].append(x.reshape(len(x), *shape))
        found = {}
        for (_, kind), x in zip(self.kinds, parts, strict=True):
            counts, layout = kind.parts[c].counts, column.places[kind.leaves[0]].layout
            each = lax.split(_joined(x), [math.prod(counts)] * len(kind.leaves))
            found |= {i: layout.together(y, counts) for i, y in zip(kind.leaves, each, strict=True)}
        return found

    def _place(self, number: int, c: int = 0) -> Any:
        return self.columns[c].places[self.kinds[number][1].leaves[0]]


def _kinds(columns: Sequence[Column], group: list[int], sizes: Mapping[str, int]) -> list[Kind]:
    """Returns the kinds of leaves among those that share a stack."""
    found: dict[Hashable, Kind] = {}
    for i in group:
        parts = [_parts(column, i, sizes) for column in columns]
        each = {math.prod(p.counts) // p.division.devices for p in parts}
        ways = {(*p.division.sizes, math.prod(p.counts)) for p in parts}
        rest = math.prod(parts[0].counts) % parts[0].division.devices
        if len(each) > 1 or (rest and len(ways) > 1):
            told = ", ".join(f"{c.name} {axes_of(c.arrays[i])}" for c in columns)
            raise ValueError(f"the matrices of a leaf are divided in several ways: {told}")
        # If they are divided among themselves in one column only, the leaf is exchanged alone, so
        # that each device gets those that it has in the other column.
        alone = i if len(ways) > 1 else None
        like = [
            (c.places[i], c.arrays[i].dtype, p.own) for c, p in zip(columns, parts, strict=True)
        ]
        found.setdefault((alone, *like), Kind([], parts, 0)).leaves.append(i)
    numbers = [math.prod(kind.parts[0].counts) * len(kind.leaves) for kind in found.values()]
    return [
        kind._replace(rest=number % kind.parts[0].division.devices)
        for kind, number in zip(found.values(), numbers, strict=True)
    ]


def _parts(column: Column, i: int, sizes: Mapping[str, int]) -> Parts:
    layout, axes = column.places[i].layout, axes_of(column.arrays[i])
    axes = [axes[a] for a in layout.order]
    counting, own = axes[: layout.counted], tuple(axes[layout.counted :])
    counts = tuple(
        n // math.prod(sizes[a] for a in names)
        for n, names in zip(layout.counts, counting, strict=True)
    )
    taken = {a for names in counting for a in names}
    rest = {name: size for name, size in sizes.items() if name not in taken}
    return Parts(counts, own, Division(rest, [a for names in own for a in names]))


def _by_group(
    place: Sequence[tuple[int, int]], kinds: Sequence[tuple[int, Kind]]
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Returns the kinds that share a place on each device, by their stacks."""
    found: dict[int, list[tuple[int, int]]] = {}
    for number, first in place:
        found.setdefault(kinds[number][0], []).append((number, first))
    return list(found.items())


def _flat(x: Array, kept: int) -> Array:
    """Returns an array with all axes after the first ones as one."""
    return x.reshape(*x.shape[:kept], math.prod(x.shape[kept:]))


def _joined(stacks: Sequence[Array]) -> Array:
    return stacks[0] if len(stacks) == 1 else lax.concatenate(stacks, 0)
