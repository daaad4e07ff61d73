"""Examples at the end of a command's `--help`."""


def examples(*lines: str) -> str:
    """An epilog for click that shows these lines as they are."""
    return "\b\nFor example:\n" + "\n".join(f"  {line}" for line in lines)
