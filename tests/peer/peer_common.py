"""What the runner, the shim and the comparison of signatures share."""

import json
import os

VERSION = "0.2.8"
HERE = os.path.dirname(os.path.abspath(__file__))
# Facts about optax, none of its code:
EXPECTED = os.path.join(HERE, "expected_tests.json")  # test id -> outcome on real optax, seconds
EXCLUSIONS = os.path.join(HERE, "exclusions.json")  # test id -> why it needs private internals
API = os.path.join(HERE, "optax_api.json")  # public names and signatures
# Facts about gradtx:
DEVIATIONS = os.path.join(HERE, "deviations.json")  # what differs on purpose, and why
PUBLIC_SUBMODULES = (
    "transforms",
    "schedules",
    "losses",
    "tree",
    "tree_utils",
    "contrib",
    "projections",
    "perturbations",
    "assignment",
    "microbatching",
    "experimental",
    "second_order",
)


def load_json(path, default):
    try:
        with open(path) as f:
            return json.load(f)
    except FileNotFoundError:
        return default


def target_paths(args):
    """The directories to import the target from."""
    paths = [os.path.abspath(p) for p in args.target_path]
    if not paths:
        for d in (os.getcwd(), os.path.join(os.getcwd(), "src")):
            if os.path.isdir(os.path.join(d, args.target)) and d != HERE:
                paths.append(d)
    return paths
