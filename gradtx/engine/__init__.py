"""The engine lifts rules of one array to pytrees, and joins transformations to chains.

A call of `adamw(1e-3).update(updates, state, params)` passes through these modules:

1. `leafwise`. `adamw` is a chain of three pieces. Each is made by a factory decorated with `piece`,
   which records how links were made. The factory calls `leafwise(state, init, update)`, which
   returns a transformation with one `Rule`.
2. `links`. A `Rule` is one kind of link: a `Kernel` (the pure functions of one array, in `rules`)
   with numbers, schedules, masks and a name. The other kinds are `Coupled` (`coupled`) for methods
   written over whole pytrees, `Pair` for wrappers (`pipeline.wrapped`) and for pairs of other
   libraries, and `Stacked` of `gradtx.matrices` for rules of stacks of matrices. Each
   implements `init`, `update`, `narrow`, `effects` and `freeze`.
3. `pipeline`. `chain` puts the links in one flat row, a `Pipeline`; the nesting is in the skeleton
   of its state. (`order` refuses links after those that must be last.) The pair that the user holds
   is `Init(pipeline)` and `Update(pipeline)`. `update` splits the state, runs one segment after
   another, and adds the titles of links to errors.
4. `segment`. Neighbours that can be compiled together are a `Segment`. Inside `jit` it runs its
   links as they are. Outside, it calls one compiled function, which JAX caches by the value of the
   links without their numbers (`made`). Inside it the links are made again, with `Number`s
   (`numerics`) in place of the numbers; these are arguments of the compiled function. Before the
   call, Python computes what cannot be compiled: masks (`masks`), and schedules that gradtx did
   not make.
5. `sweep`. Neighbouring rules are one `Sweep` over the leaves. It flattens the pytrees, checks
   pairs of leaves (`checks`), and has a `Lane` for each rule: slots, step count, random keys, and
   the scalars that all leaves share (`scalars`). Leaves are traced in blocks that repeat
   (`blocks`).
6. `leaf`. `update_leaf` passes one leaf through the kernels, in float32 or wider; `storage` decides
   how slots are stored. It is traced once for each shape and dtype.
7. Back in the sweep, the lanes return the next states, with the count and the learning rate of the
   step; the pipeline joins them to the state.

`init` takes the same path, link by link; `first` has a rule's first slots, which
`storage.first_slots` makes. Random keys are derived in `keys`; `draws` has the random numbers of
many leaves, in loops, and `cutting` separates the results of leaves that were computed together.
Paths of leaves and differences of structures are in `paths`; the distinction of traced and concrete
arrays in `concrete`; the types in `base`. Pipelines are compared and pickled by how they were made
(`equality`). Shardings and exchanges between devices are in `gradtx._devices`, and the roles of a
state's fields in `gradtx._roles`.

To extend it: a new rule needs none of these files. A new kind of link is a class like those in
`links`. Only `storage` decides how slots are stored, and only `checks` which leaves are allowed.
Imports form no cycle; a test checks it.
"""
