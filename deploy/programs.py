"""Programs of `./run` beside `cqrs`: modules that are run with `python -m`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from models.errors import CqrsError


def run_program(task: Callable[[], None]) -> None:
    """Do a task; what fails is one line on standard error.

    Ends the process with code 1 if the task cannot be done, and with 130 after Ctrl-C.
    """
    try:
        task()
    except KeyboardInterrupt:
        code, line = 130, "\ncqrs: interrupted"
    except CqrsError as error:
        code, line = 1, f"cqrs: {error}"
    except OSError as error:
        code, line = 1, f"cqrs: {os_error_line(error)}"
    else:
        return
    print(line, file=sys.stderr)
    sys.exit(code)


def os_error_line(error: OSError) -> str:
    """Return what the operating system says, and of which file."""
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or type(error).__name__}{where}"
