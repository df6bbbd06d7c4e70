"""What is installed."""

import argparse
import json

from .._library import get_num_threads
from .._native import build_info

HELP = "version, backends, instruction set, threads"
DESCRIPTION = "Prints what this installation of treescan is and can do."
EXAMPLE = "treescan info --json"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as a JSON object")


def run(options: argparse.Namespace) -> None:
    facts = {**build_info(), "threads": get_num_threads()}
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name.replace('_', ' '):16} {value}")
