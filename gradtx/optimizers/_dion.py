"""Dion and Dion2: orthogonalized momentum of low rank, and of a part of the matrix."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradtx._roles import Slot, Statistic, declared
from gradtx.catalog import optimizer
from gradtx.engine.base import (
    Array,
    GradientTransformation,
    MaskOrFn,
    Scalar,
    ScalarOrSchedule,
    TransformationLike,
)
from gradtx.engine.leafwise import piece
from gradtx.engine.numerics import times
from gradtx.engine.rules import Slots
from gradtx.linear_algebra.decompositions import qr
from gradtx.linear_algebra.orthogonalizing import (
    Coefficients,
    Form,
    Named,
    coefficients_of,
    orthogonalized,
)
from gradtx.matrices.matrixwise import matrixwise
from gradtx.optimizers._matrices import HIDDEN, with_rest
from gradtx.transforms.matrices import Axes
from gradtx.transforms.noise import as_key
from gradtx.tree.norms import norms

DION = "Ahn et al., 'Dion: Distributed Orthonormalized Updates', arXiv:2504.05295"
DION2 = "Ahn et al., 'Dion2: A Simple Method to Shrink Matrix in Muon', arXiv:2512.16928"


@declared
class ScaleByDionState(NamedTuple):
    """The state of `scale_by_dion`.

    Attributes:
      mu: the sum of gradients without what the steps used of it.
      q: the columns, of norm 1, that span approximately the leading singular vectors of `mu` on the
        side of the inputs, `[..., rows, rank]`.
    """

    mu: Slot
    q: Statistic


@piece
def scale_by_dion(
    beta: Scalar = 0.95,
    rank: int | None = None,
    *,
    first: Literal["random", "unit"] = "random",
    key: int | Array | None = None,
    weight_dimension_numbers: Axes = None,
) -> GradientTransformation:
    """Orthogonalizes momentum approximately, in a low rank, by one step of power iteration.

    For matrices `(rows, columns)` with inputs as rows, `b = mu + g; p = orthonormal(b.H @ q);
    r = b @ p; mu = b - (1-beta) * r @ p.H; q = r / norm(r, each column);
    sqrt(columns / rows) * q @ p.H`. What the low rank leaves out stays in `mu` for later steps.
    `orthonormal` is by a QR decomposition, one for all matrices of a shape; its signs cancel.

    Columns of `r` that are rounding errors, as for zero gradients and for momentum of a lower rank,
    give no part of the step, and the columns of `q` stay what they were: their directions would
    depend on the linear algebra library. Where the columns of
    `b.H @ q` depend on each other, derivatives treat `p` as a constant.

    Args:
      beta: the decay rate of the momentum in the space of the step, the paper's `mu`. Default:
        0.95.
      rank: the rank; a Python integer, at least 1, and the shorter side for matrices in which that
        is less. Default: `None`, the shorter side.
      first: the first `q`: "random" numbers, or "unit" vectors, which need no key. Default:
        "random".
      key: a random key of JAX, or a seed. Default: the seed 0.
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: `rank` is less than 1, `first` is unknown, or a leaf is not a matrix and has no
        axes.

    Source: Ahn et al., "Dion: Distributed Orthonormalized Updates", arXiv:2504.05295, Algorithm 1,
    with the factor of its section on learning rates.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_dion(rank=1)
      >>> g = jnp.array([[3.0, 0.0], [0.0, 0.001]])
      >>> state = tx.init(g)
      >>> for _ in range(2):
      ...     updates, state = tx.update(g, state)
      >>> print(updates.round(2) + 0.0)
      [[1. 0.]
       [0. 0.]]
    """

    def init(p: Array, keys: Array) -> Slots:
        rows, columns = p.shape[1:]
        side = min(rows, columns) if rank is None else min(rank, rows, columns)
        q = jnp.eye(rows, side, dtype=p.dtype)
        if first == "random":
            draw = functools.partial(jax.random.normal, shape=(rows, side), dtype=p.dtype)
            q = jax.vmap(draw)(keys)
            q = q / norms(q, axis=(1,))[0].astype(q.dtype)
        # a sum, so that it is sharded like the parameters
        return Slots(mu=jnp.zeros_like(p), q=jnp.zeros_like(p[:, :, :side]) + q)

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        rows, columns = g.shape[1:]
        b = s.mu + g
        largest = jnp.max(jnp.abs(b), (1, 2), keepdims=True, initial=0)
        unit = b / jnp.where(largest > 0, largest, 1)  # whose squares are in range
        left = _orthonormal(_product(_adjoint(unit), s.q))
        adjoint = _adjoint(left)
        r = _product(unit, left)
        size = norms(r, axis=(1,))[0]
        noise = (
            jnp.finfo(size.dtype).eps
            * max(rows, columns)
            * jnp.max(size, 2, keepdims=True, initial=0)
        )
        used = ~(size <= noise)  # also NaN, which has to be seen in the update
        q = jnp.where(used, r / jnp.where(used, size, 1), 0)
        mu = b - times(1 - beta, _product(r * largest, adjoint))
        u = _product(q, adjoint) * (columns / max(rows, 1)) ** 0.5
        return u, Slots(mu=mu, q=jnp.where(size > noise, q, s.q))

    return matrixwise(
        ScaleByDionState,
        init,
        update,
        axes=weight_dimension_numbers,
        key=as_key(key, None, "scale_by_dion"),
        argument="weight_dimension_numbers",
        name="scale_by_dion",
    )


def _product(a: Array, b: Array) -> Array:
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))))


def _adjoint(a: Array) -> Array:
    return (lax.conj(a) if jnp.iscomplexobj(a) else a).mT


@jax.custom_jvp
def _orthonormal(x: Array) -> Array:
    """Returns orthonormal columns that span those of matrices.

    Args:
      x: matrices `(n, rows, columns)`, with no more columns than rows.
    """
    return qr(x)[0]


@_orthonormal.defjvp
def _derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """Returns the derivative of a QR decomposition, and 0 where the columns are dependent."""
    q, r = qr(primals[0])
    sizes = jnp.abs(jnp.diagonal(r, axis1=1, axis2=2))
    noise = jnp.finfo(sizes.dtype).eps * len(q[0]) * jnp.max(sizes, 1, keepdims=True, initial=0)
    independent = jnp.all(sizes > noise, 1)[:, None, None]
    r = jnp.where(independent, r, jnp.eye(r.shape[1], dtype=r.dtype))
    # d = dx / r; q turns by the skew part of q.H @ d, and out of its own span by the rest of d
    d = jax.scipy.linalg.solve_triangular(r, tangents[0].mT, trans=1, lower=False).mT
    within = _product(_adjoint(q), d)
    lower = jnp.tril(within, -1)
    turning = lower - _adjoint(lower)
    if jnp.iscomplexobj(q):  # the diagonal of r is real
        turning += 1j * (jnp.imag(within) * jnp.eye(r.shape[1]))
    return q, jnp.where(independent, d + _product(q, turning - within), 0)


@optimizer(
    DION,
    family="orthogonalized",
    acts_on="matrices",
    # With first columns that are known, so that it can be compared.
    probe={"learning_rate": 0.05, "rank": 2, "first": "unit", "weight_dimension_numbers": None},
    usual_rate=0.01,
)
def dion(
    learning_rate: ScalarOrSchedule,
    beta: Scalar = 0.95,
    rank: int | None = None,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: MaskOrFn | None = None,
    *,
    first: Literal["random", "unit"] = "random",
    key: int | Array | None = None,
    weight_dimension_numbers: Axes = HIDDEN,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """Dion: orthogonalized momentum of low rank, by one step of power iteration.

    `p - learning_rate * (u + weight_decay * p)` with the result `u` of `scale_by_dion` for the
    matrices of hidden layers; AdamW, or another optimizer, for all other leaves. The authors'
    program adds 1e-8 to the norms of columns, where this one leaves out those that are rounding
    errors; it gives vectors and embeddings other multiples of the learning rate.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      beta: the decay rate of the momentum in the space of the step, the paper's `mu`. Default:
        0.95.
      rank: the rank; a Python integer, at least 1. Default: `None`, the shorter side of each
        matrix; the authors find 1/4 of it or less sufficient for large matrices.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      first: the first right factor: "random" numbers, or "unit" vectors. Default: "random".
      key: a random key of JAX, or a seed, of which the first right factor is drawn. Default: the
        seed 0.
      weight_dimension_numbers: which leaves are matrices, and their axes: a pytree of `MatrixAxes`,
        with `None` for other leaves, or a function of the parameters that returns one; `None` for
        all leaves with two axes. Default: `hidden_matrices()`.
      of_rest: the optimizer of all other leaves, with its own learning rate. Default: `adamw` with
        the same learning rate, weight decay and mask, and `b2 = 0.95`.

    Raises:
      ValueError: `rank` is less than 1, `first` is unknown, or `update` was called without params.

    Source: Ahn et al., "Dion: Distributed Orthonormalized Updates", arXiv:2504.05295.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.dion(0.1, rank=2)
      >>> params = {"w": jnp.ones((4, 8)), "b": jnp.zeros(8)}
      >>> state = tx.init(params)
      >>> state.inner_states["matrices"].inner_state[0].q["w"].shape
      (1, 4, 2)
    """
    directions = scale_by_dion(
        beta,
        rank,
        first=first,
        key=key,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    return with_rest(
        directions, learning_rate, weight_decay, mask, weight_dimension_numbers, of_rest
    )


@declared
class ScaleByDion2State(NamedTuple):
    """The state of `scale_by_dion2`.

    Attributes:
      mu: the sum of gradients, in which what was used decays.
    """

    mu: Slot


@functools.partial(piece, constants=("ns_coeffs",))
def scale_by_dion2(
    parts: int = 4,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    *,
    ns_coeffs: Coefficients | Named = "polar_express",
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = None,
) -> GradientTransformation:
    """Orthogonalizes a part of the momentum: the rows, or columns, with the largest sums.

    `mu = mu + g`; on the shorter side of each matrix, those rows or columns of `mu` are selected
    that have the largest sums of magnitudes, one of `parts` parts of them. The result is
    `sqrt(columns / rows)` times the orthogonalized matrix of the selected ones, and 0 for all
    others; in `mu` the selected ones are multiplied by `beta`. Rows have the weights of one input,
    and columns those of one output; of square matrices, columns are selected.

    Args:
      parts: the number of parts of which each step takes one: `ceil(side / parts)` of the rows or
        columns; a Python integer, at least 1. Default: 4, the paper's fraction of 0.25.
      beta: the decay rate of what was selected. Default: 0.95.
      eps: added to the norm before the orthogonalization. Default: 1e-8.
      ns_coeffs: the coefficients of the iteration, or their name; see `orthogonalize`. Default:
        "polar_express".
      ns_steps: the number of steps of the iteration. Default: 5.
      ns_form: the form of the iteration: "direct", "gram" or "svd". Default: "direct".
      weight_dimension_numbers: the axes of the matrices in each tensor: a pytree of `MatrixAxes`,
        like the parameters or a prefix of them, or a function of the parameters that returns one.
        Default: every leaf is a matrix.

    Raises:
      ValueError: `parts` is less than 1, `ns_coeffs` or `ns_form` is unknown, or a leaf is not
        a matrix and has no axes.

    Source: Ahn et al., "Dion2: A Simple Method to Shrink Matrix in Muon", arXiv:2512.16928.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.scale_by_dion2(2, ns_form="svd")
      >>> g = jnp.array([[3.0, 1.0], [0.0, 0.0]])
      >>> state = tx.init(g)
      >>> updates, state = tx.update(g, state)
      >>> print(updates.round(2) + 0.0, state.mu)
      [[1. 0.]
       [0. 0.]] [[2.85 1.  ]
       [0.   0.  ]]
    """
    coefficients = coefficients_of(ns_coeffs, ns_steps, "scale_by_dion2")

    def init(p: Array) -> Slots:
        return Slots(mu=jnp.zeros_like(p))

    def update(g: Array, s: Slots, step: None, p: None) -> tuple[Array, Slots]:
        rows, columns = g.shape[1:]
        mu = s.mu + g
        across = columns <= rows
        x = mu.mT if across else mu
        number = -(-x.shape[1] // parts)
        sums = jnp.sum(jnp.abs(x), 2)
        _, chosen = lax.top_k(sums, number)
        part = jnp.take_along_axis(x, chosen[:, :, None], 1)
        o = orthogonalized(part, coefficients, ns_steps, ns_form, "frobenius", eps)
        o = o * (columns / max(rows, 1)) ** 0.5

        def put(x: Array, values: Array) -> Array:
            return jax.vmap(lambda x, i, v: x.at[i].set(v))(x, chosen, values)

        u, x = put(jnp.zeros_like(x), o), put(x, times(beta, part))
        return (u.mT, Slots(mu=x.mT)) if across else (u, Slots(mu=x))

    axes = weight_dimension_numbers
    return matrixwise(
        ScaleByDion2State,
        init,
        update,
        axes=axes,
        argument="weight_dimension_numbers",
        name="scale_by_dion2",
    )


@optimizer(
    DION2,
    family="orthogonalized",
    acts_on="matrices",
    probe={"learning_rate": 0.05, "parts": 2, "weight_dimension_numbers": None},
    usual_rate=0.01,
    constants=("ns_coeffs",),
)
def dion2(
    learning_rate: ScalarOrSchedule,
    parts: int = 4,
    beta: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: ScalarOrSchedule = 0.01,
    mask: MaskOrFn | None = None,
    *,
    ns_coeffs: Coefficients | Named = "polar_express",
    ns_steps: int = 5,
    ns_form: Form = "direct",
    weight_dimension_numbers: Axes = HIDDEN,
    of_rest: TransformationLike | None = None,
) -> GradientTransformation:
    """Dion2: Muon for a part of the rows or columns at each step, those with the largest momentum.

    `p - learning_rate * (u + weight_decay * p)` with the result `u` of `scale_by_dion2` for the
    matrices of hidden layers; AdamW, or another optimizer, for all other leaves. Where matrices are
    sharded, the authors' program selects within each shard; this one selects from whole matrices,
    so that the steps are the same on every mesh.

    Args:
      learning_rate: a number, a scalar array or a schedule.
      parts: the number of parts of which each step takes one: `ceil(side / parts)` of the rows or
        columns; a Python integer, at least 1. Default: 4, the paper's fraction of 0.25.
      beta: the decay rate of what was selected. Default: 0.95.
      eps: added to the norm before the orthogonalization. Default: 1e-8.
      weight_decay: the coefficient of decoupled weight decay, a number or a schedule; the learning
        rate multiplies it. Default: 0.01.
      mask: which parameters decay: a pytree of booleans, or a function of the parameters that
        returns one. Default: all.
      ns_coeffs: the coefficients of the iteration, or their name; see `orthogonalize`. Default:
        "polar_express".
      ns_steps: the number of steps of the iteration. Default: 5.
      ns_form: the form of the iteration: "direct", "gram" or "svd". Default: "direct".
      weight_dimension_numbers: which leaves are matrices, and their axes: a pytree of `MatrixAxes`,
        with `None` for other leaves, or a function of the parameters that returns one; `None` for
        all leaves with two axes. Default: `hidden_matrices()`.
      of_rest: the optimizer of all other leaves, with its own learning rate. Default: `adamw` with
        the same learning rate, weight decay and mask, and `b2 = 0.95`.

    Raises:
      ValueError: `parts` is less than 1, `ns_coeffs` or `ns_form` is unknown, or `update` was
        called without params.

    Source: Ahn et al., "Dion2: A Simple Method to Shrink Matrix in Muon", arXiv:2512.16928.

    Example:
      >>> import jax.numpy as jnp
      >>> import gradtx
      >>> tx = gradtx.dion2(0.1, weight_decay=0.0, ns_form="svd")
      >>> params = {"w": jnp.diag(jnp.arange(4.0))}
      >>> print(tx.update(params, tx.init(params), params)[0]["w"][3] + 0.0)
      [ 0.   0.   0.  -0.1]
    """
    directions = scale_by_dion2(
        parts,
        beta,
        eps,
        ns_coeffs=ns_coeffs,
        ns_steps=ns_steps,
        ns_form=ns_form,
        weight_dimension_numbers=weight_dimension_numbers,
    )
    return with_rest(
        directions, learning_rate, weight_decay, mask, weight_dimension_numbers, of_rest
    )
