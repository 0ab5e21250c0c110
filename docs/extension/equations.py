"""Equations of docstrings, which are written as code, in LaTeX.

`mu = b1*mu + (1-b1)*g; p - learning_rate * mu` is parsed as Python. What is not an expression of
numbers, names and functions of one letter or word stays as it is. Cases are lines that begin with
`t < start:` or `otherwise:`. `sum(x[i], over i)` is a sum over an index, `[i != j]` is 1 or 0, and
`x[1] + ... + x[n]` leaves terms out.
"""

import ast
import re

GREEK = {
    **{name: rf"\{name}" for name in ("alpha", "beta", "gamma", "delta", "eta", "mu", "nu", "rho")},
    **{"sigma": r"\sigma", "phi": r"\phi", "pi": r"\pi", "eps": r"\epsilon", "lamb": r"\lambda"},
}
PROGRAMS = {"chain", "partition", "masked", "microbatch", "schedule_free", "update"}
"""Functions of gradtx that stand in docstrings as code: no equations."""

OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: r"\,", ast.MatMult: r"\,", ast.Mod: r"\bmod"}
RELATIONS = {
    **{ast.Lt: "<", ast.LtE: r"\le", ast.Gt: ">", ast.GtE: r"\ge", ast.Eq: "=", ast.NotEq: r"\ne"},
}
FOLDS = {"sum": r"\sum", "prod": r"\prod", "max": r"\max", "min": r"\min"}
"""Functions that may be taken over an index."""


class NoEquation(ValueError):
    """The text is not an equation that can be typeset."""


def latex(text: str) -> str:
    """Returns statements, separated by semicolons, lines or wide gaps, as aligned LaTeX.

    Args:
      text: the statements.

    Raises:
      NoEquation: a statement is not an equation that can be typeset.

    Example:
      >>> print(latex("v = decay * v - g; p + v"))
      \\begin{aligned}v &= \\mathrm{decay} \\, v - g\\\\&p + v\\end{aligned}
    """
    statements = [
        part.strip(" ,.") for part in re.split(r";|\n|,[ ]{2,}|[ ]{3,}(?!=)", _joined(text))
    ]
    rows = [_statement(part) for part in statements if part]
    if not rows:
        raise NoEquation(text)
    return r"\begin{aligned}" + r"\\".join(rows) + r"\end{aligned}"


def is_long(text: str) -> bool:
    """Returns whether a piece of code is worth a line of its own; the name of an array is not.

    Args:
      text: the code.

    Example:
      >>> is_long("weight_decay * learning_rate * p"), is_long("scale_by_adam/mu/layer/kernel")
      (True, False)
    """
    named = re.fullmatch(r"\w+(/\w+)+", text)
    return len(text) > 24 and not named and bool(re.search(r"[-+*/@]", text))


def _joined(text: str) -> str:
    """Joins continued lines and columns: of equals signs, and of what is said of cases."""
    text = re.sub(r"\n\s*([-+*/])\s", r" \1 ", text)
    text = re.sub(r",\n[ ]+", ", ", text)
    text = re.sub(r":[ ]+", ": ", text)
    return re.sub(r"[ ]{2,}=", " =", text)


def _statement(text: str) -> str:
    case, colon, told = text.partition(": ")
    if colon:
        return rf"{_statement(told)} \quad {_case(case)}"
    left, equals, right = text.partition(" = ")
    if not equals:
        return f"&{_expression(_parsed(text))}"
    return f"{_several(_parsed(left))} &= {_several(_parsed(right))}"


def _several(node: ast.expr) -> str:
    """Returns one side of an equation, which may be of several that hold at once."""
    return ", ".join(map(_expression, node.elts if isinstance(node, ast.Tuple) else [node]))


def _case(text: str) -> str:
    if text == "otherwise":
        return r"\text{otherwise}"
    condition = _parsed(text.replace(" = ", " == "))
    if not isinstance(condition, ast.Compare):
        raise NoEquation(text)
    return rf"\text{{for }} {_expression(condition)}"


def _parsed(text: str) -> ast.expr:
    code = text.replace("^", "**")
    code = re.sub(r", (each|over) (\w+)\)", r", \1_\2)", code)  # the axis of a norm or a mean
    code = re.sub(r"<([^<>,]+),([^<>]+)>", r"inner(\1,\2)", code)
    for _ in range(3):  # absolute values, from the inside
        code = re.sub(r"\|([^|]+)\|", r"abs(\1)", code)
    try:
        return _MinusInFront().visit(ast.parse(code.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        raise NoEquation(code) from None


class _MinusInFront(ast.NodeTransformer):
    """Reads `-a * b` as `-(a * b)`, which needs no brackets."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        left = node.left
        if isinstance(left, ast.UnaryOp) and isinstance(node.op, (ast.Mult, ast.Div)):
            return ast.UnaryOp(left.op, ast.BinOp(left.operand, node.op, node.right))
        return node


def _folded(node: ast.expr) -> tuple[str, ast.expr, str] | None:
    """Returns the sign, the terms and the index of `sum(terms, over i)`; `None` for all else."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[terms, ast.Name(id=axis)], keywords=[]):
            known = name in FOLDS and re.fullmatch(r"over_\w", axis)
            return (FOLDS[name], terms, axis[-1]) if known else None
    return None


def _strength(node: ast.expr) -> int:
    """Returns how strongly the parts of an expression are bound."""
    if _folded(node):
        return 2
    if isinstance(node, ast.BinOp):
        return {ast.Add: 1, ast.Sub: 1, ast.Div: 9, ast.Pow: 4}.get(type(node.op), 2)
    return {ast.Compare: 0, ast.UnaryOp: 1}.get(type(node), 9)


def _inside(node: ast.expr, least: int) -> str:
    if isinstance(node, ast.Constant) and node.value is ...:
        return r"\cdots"
    text = _expression(node)
    return text if _strength(node) >= least else rf"\left({text}\right)"


def _expression(node: ast.expr) -> str:
    if found := _folded(node):
        sign, terms, index = found
        return rf"{sign}_{{{index}}} {_inside(terms, 2)}"
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return _number(node.value)
        case ast.Name(id=name):
            return _name(name)
        case ast.Attribute(value=value, attr="H" | "T"):
            return rf"{_inside(value, 5)}^{{\mathsf {node.attr}}}"
        case ast.Subscript(value=value, slice=index):
            parts = index.elts if isinstance(index, ast.Tuple) else [index]
            return f"{{{_expression(value)}}}_{{{', '.join(_expression(part) for part in parts)}}}"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"-{_inside(operand, 2)}"
        case ast.List(elts=[ast.Compare() as condition]):
            return rf"\left[{_expression(condition)}\right]"
        case ast.Compare(left=left, ops=ops, comparators=rest) if RELATIONS.keys() >= set(
            map(type, ops)
        ):
            more = (
                f" {RELATIONS[type(op)]} {_expression(x)}" for op, x in zip(ops, rest, strict=True)
            )
            return _expression(left) + "".join(more)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return rf"\frac{{{_expression(left)}}}{{{_expression(right)}}}"
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base = _inside(left, 10 if isinstance(left, ast.BinOp) else 5)
            return f"{base}^{{{_expression(right)}}}"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            strength = _strength(node)
            # The right side of a difference, and of a product of matrices, keeps its brackets.
            second = _inside(right, strength + (isinstance(op, ast.Sub) or strength == 2))
            between = OPERATORS[type(op)]
            if isinstance(op, ast.Mult) and second[0].isdigit():
                between = r"\cdot"
            return f"{_inside(left, strength)} {between} {second}"
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name not in PROGRAMS:
            return _call(name, [_expression(argument) for argument in args])
        case ast.Call(func=ast.Subscript() as function, args=[argument], keywords=[]):
            return rf"{_expression(function)}\left({_expression(argument)}\right)"
    raise NoEquation(ast.unparse(node))


def _call(name: str, args: list[str]) -> str:
    axes = [arg for arg in args if re.match(r"\\mathrm\{(each|over)", arg)]
    listed = ", ".join(arg for arg in args if arg not in axes)
    below = "".join(f"_{{{axis}}}" for axis in axes).replace("\\_", "~")
    match name:
        case "sqrt":
            return rf"\sqrt{{{listed}}}"
        case "abs":
            return rf"\left|{listed}\right|"
        case "norm":
            return rf"\left\|{listed}\right\|{below}"
        case "inner" if len(args) > 1:  # with one, the function of that name
            return rf"\left\langle {listed}\right\rangle"
        case "floor":
            return rf"\left\lfloor {listed}\right\rfloor"
    short = {"max", "min", "log", "exp", "sin", "cos", "cosh", "tanh"}
    shown = rf"\{name}" if name in short else _name(name)
    return rf"{shown}{below}\left({listed}\right)"


def _number(value: float) -> str:
    digits, _, power = f"{value!r}".partition("e")
    if not power:
        return digits
    scale = f"10^{{{int(power)}}}"
    return scale if digits == "1" else rf"{digits} \cdot {scale}"


def _name(name: str) -> str:
    if name.endswith("_hat"):
        return rf"\hat{{{_name(name.removesuffix('_hat'))}}}"
    found = re.fullmatch(
        r"(?!betas$)([a-zA-Z]|mu|nu|beta|gamma)_?(\d|[a-z]|last|max|min|old|new|row|col)", name
    )
    if found and name not in GREEK:
        base, index = found.groups()
        shown = index if len(index) == 1 else rf"\mathrm{{{index}}}"
        return f"{_name(base)}_{{{shown}}}"
    if name in GREEK:
        return GREEK[name]
    return name if len(name) == 1 else rf"\mathrm{{{name.replace('_', chr(92) + '_')}}}"
