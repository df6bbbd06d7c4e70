"""The command line: `treescan filter`, `tree`, `affinity`, `info` and `demo`."""

from __future__ import annotations

import argparse
import sys

from . import affinity, demo, filter, info, tree
from .problem import Problem

_COMMANDS = {"filter": filter, "tree": tree, "affinity": affinity, "info": info, "demo": demo}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="treescan", description="Trees of photographs, and scans along them.")
    commands = root.add_subparsers(dest="command", required=True, metavar="command")
    for name, module in _COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION,
                                      epilog=f"example: {module.EXAMPLE}")
        module.add_arguments(command)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 1 for anything that went wrong, 2 for a wrong call."""
    try:
        options = parser().parse_args(arguments)
        _COMMANDS[options.command].run(options)
    except Problem as problem:
        print(f"treescan: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("treescan: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has gone
        return 1
    except SystemExit as exit:  # argparse has said why
        return int(exit.code or 0)
    return 0
