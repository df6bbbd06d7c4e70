"""Docstrings as Markdown: examples and equations are fenced, so that nothing in them is taken for markup."""

import re

import griffe

SECTIONS = ("Arguments:", "Fields:")


class Docstrings(griffe.Extension):
    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text):
    blocks, lines = [], text.expandtabs().split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        indent = len(line) - len(line.lstrip())
        if line.startswith(">>>"):  # an example, up to the next empty line
            end = at
            while end < len(lines) and lines[end].strip():
                end += 1
            blocks += ["```pycon", *lines[at:end], "```"]
        elif line in SECTIONS:
            end = at + 1
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
                end += 1
            if line == "Fields:":
                line = "Attributes:"
            blocks += [line, *map(safe, lines[at + 1 : end])]
        elif indent >= 4 and line.strip():  # an equation: indented lines, with empty ones between them
            end = at
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
                end += 1
            while not lines[end - 1].strip():
                end -= 1
            blocks += ["```text", *(part[4:] for part in lines[at:end]), "```"]
        else:
            blocks.append(safe(line.replace(": ", ":\u2000", 1) if re.fullmatch(r"[\w\s-]+:", line) else line))
            end = at + 1
        at = max(end, at + 1)
    return "\n".join(blocks)


def safe(line):
    """A line of prose, whose brackets and bars are no markup."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else re.sub(r"([*<\[\]])", r"\\\1", part) for part in parts)
