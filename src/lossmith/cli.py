"""The `lossmith` command: starts lossmith.lab.commands, and turns its errors into one line and an exit code."""

from __future__ import annotations

import sys

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for what the user can put right, 130 for Ctrl-C."""
    try:
        from typer import Abort

        from lossmith.lab import UserError
        from lossmith.lab.commands import app
        from lossmith.lab.commands.terminal import Interrupted, printable
    except KeyboardInterrupt:  # imports take a second
        _fail("stopped")
        return _INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("typer", "rich"):
            raise
        return _fail('the command line needs the lab: pip install "lossmith[lab]"')
    try:
        code = int(app(arguments, prog_name="lossmith", standalone_mode=False) or 0)
        if code == _INTERRUPTED:  # which is what typer makes of Ctrl-C, where a command does not know better
            _fail("stopped")
        return code
    except UserError as error:
        return _fail(printable(str(error)))
    except Interrupted as left:
        _fail(printable(f"stopped{left}"))
        return _INTERRUPTED
    except (KeyboardInterrupt, Abort):
        _fail("stopped")
        return _INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises for a wrong option or a missing argument has it
            raise
        message = printable(" ".join(error.format_message().split()))
        if not message:  # a bare `lossmith`: the help is printed already
            return 2
        context, option = getattr(error, "ctx", None), getattr(getattr(error, "param", None), "name", None)
        command = getattr(context, "command_path", "lossmith")
        if context is not None and option in (context.default_map or {}):  # which is what --settings makes of its file
            message = f"{message.rstrip('.')} (--settings has {option}: {context.default_map[option]})"
        return _fail(f"{message.rstrip('.')}; {command} --help lists what there is")


def _fail(message: str) -> int:
    print(f"lossmith: {message}", file=sys.stderr)
    return 2
