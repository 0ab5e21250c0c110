"""The program `python -m gradtx.as_optax`; the function `gradtx.as_optax` is in `interop`."""

import sys

from gradtx.interop import command

if __name__ != "__main__":  # the module would replace the function
    raise ImportError(
        "gradtx.as_optax is a function, and a program for `python -m`; use `import gradtx`"
    )
sys.exit(command.main())
