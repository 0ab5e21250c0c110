"""The program `python -m gradtx.as_optax`; the function `gradtx.as_optax` is in `interop`."""

import sys

from gradtx.interop import command

if __name__ != "__main__":  # imported, the module would replace the function in `gradtx`
    raise ImportError(
        "gradtx.as_optax is a function: use `import gradtx`, then `gradtx.as_optax()`; as a "
        "program, run it with `python -m gradtx.as_optax`"
    )
sys.exit(command.main())
