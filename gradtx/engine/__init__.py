"""The engine: what lifts rules of one array, or of one stack of matrices, over pytrees.

What `adamw(1e-3).update(updates, state, params)` goes through, hop by hop:

1. `leafwise`. `adamw` is a chain of three pieces. Each is a factory under `piece`, so that its
   links know how they were made, and calls `leafwise(state, init, update)`, which makes a
   transformation of a `Rule`.
2. `links`. A `Rule` is one kind of link: a `Kernel` (`rules`), the pure functions of one array,
   with its numbers and schedules, masks and name. The others are `Stacked` (`matrixwise`), for
   stacks of matrices (`matrix_layout`), `Coupled` (`coupled`), for methods written over whole
   trees, `Wrapped` and `Pair` for what is around another transformation, or is somebody else's.
   Each answers for itself: `init`, `update`, `narrow`, `effects`, `freeze`.
3. `pipeline`. `chain` puts the links in one flat row, a `Pipeline`; the nesting is in the skeleton
   of its state. The pair that the user holds is `Init(pipeline)` and `Update(pipeline)`. `update`
   takes the state apart, runs segment after segment, and puts the titles of links before errors.
4. `segment`. Neighbours that can be compiled together are a `Segment`. Inside of `jit` it runs its
   links as they are. Outside, it calls one compiled function, which JAX keeps by the value of the
   links without their numbers (`made`): there the links are made again, with `Number`s
   (`numerics`), which are arguments of the compiled function, in the place of numbers. Before that
   it computes what only Python can: masks (`masks`), and the schedules of others.
5. `sweep`. Neighbouring rules are one `Sweep` over the leaves. It flattens the trees, checks pairs
   of leaves (`checks`), and gives each rule's part a `Lane`: slots, step count, random keys, and
   the scalars that all leaves share. Leaves are traced in pieces that repeat (`blocks`).
6. `leaf`. `update_leaf` takes one leaf through the kernels, in float32 or wider; `storage` decides
   how slots are stored. It is traced once for each shape and dtype.
7. Back in the sweep, the lanes make the next states, with the count and the learning rate that the
   step used; the pipeline joins them to the state.

`init` goes the same way, link by link; `storage.first_slots` makes a rule's slots. What is said of
a state's fields is in `roles`; names of leaves, and how two trees differ, in `paths`; what is
traced and what is concrete, in `concrete`; the types, in `base`.

What may be touched: a new rule needs none of these files. A new kind of link is a class beside
those in `links`. How slots are stored is decided in `storage` alone, and what a leaf may be in
`checks` alone. Imports point from later to earlier hops; a test says so.
"""
