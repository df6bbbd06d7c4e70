"""The C interface's page, made from treescan.h: each declaration with the comment above it."""

import re

INTRODUCTION = """# C interface

Made from `treescan.h`, where every symbol is documented. `treescan.hpp` puts the same calls into C++:
[Use it from C and C++](../guides/c-and-cpp.md) shows both.
"""
SECTION = re.compile(r"/\* ---- (.*) ---- \*/")
NAME = re.compile(
    r"(?:\b(treescan_\w+)\(|\(\*(treescan_\w+)\)|^typedef (?:enum|struct) (treescan_\w+)|^#define (TREESCAN_\w+))",
    re.MULTILINE,
)


def page(header):
    """The header as Markdown."""
    parts, rest = [INTRODUCTION.rstrip()], header
    comment, rest = take_comment(rest)
    parts.append(prose(comment))
    parts.append("## Constants and types")
    rest = rest[rest.index("#define TREESCAN_VERSION_MAJOR") :]
    pending = ""
    while rest.strip():
        rest = rest.lstrip("\n")
        if section := SECTION.match(rest):
            parts.append(f"## {section.group(1)}")
            rest = rest[section.end() :]
        elif rest.startswith("/*"):
            comment, rest = take_comment(rest)
            pending = prose(comment)
        elif rest.startswith("#if defined(_WIN32)"):  # how symbols are exported
            rest = rest[rest.index('extern "C" {\n#endif') + len('extern "C" {\n#endif') :]
        elif rest.startswith("#ifdef __cplusplus"):
            break
        else:
            declaration, rest = take_declaration(rest)
            name = next(filter(None, NAME.search(declaration).groups()))
            parts += [f"### {name} {{ #{name} }}", f"```c\n{declaration}\n```", pending]
            pending = ""
    return "\n\n".join(filter(None, parts)) + "\n"


def take_comment(text):
    end = text.index("*/") + 2
    lines = text[2 : end - 2].split("\n")
    return "\n".join([lines[0].strip(), *(re.sub(r"^ \* ?", "", line).rstrip() for line in lines[1:])]).strip("\n"), text[
        end:
    ]


def take_declaration(text):
    """The next declaration: a run of #defines, or all up to the semicolon outside of braces."""
    if text.startswith("#define"):
        end = re.match(r"(?:#define .*\n)+", text).end()
        return text[:end].rstrip(), text[end:]
    depth = 0
    for place, character in enumerate(
        re.sub(r"/\*.*?\*/", lambda comment: " " * len(comment.group()), text, flags=re.DOTALL)
    ):
        depth += (character == "{") - (character == "}")
        if character == ";" and depth == 0:
            end = text.find("\n", place)
            return unexported(text[:end]).rstrip(), text[end:]
    raise ValueError(f"no declaration ends in: {text[:80]}")


def unexported(declaration):
    """A declaration without the macro that exports it, whose lines stay aligned."""
    mark = "TREESCAN_API "
    if not declaration.startswith(mark):
        return declaration.replace(mark, "")
    return re.sub(f"^(?:{mark}| {{{len(mark)}}})", "", declaration, flags=re.MULTILINE)


def escaped(line):
    return re.sub(r"([*\[\]_])", r"\\\1", line).replace("<", "&lt;")


def prose(comment):
    """A comment as Markdown: paragraphs, lists, arguments with what they are, formulas."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", comment):
        items, formula = [], []
        for line in paragraph.split("\n"):
            argument = re.match(r" {1,3}((?:[A-Za-z_\->]+)(?:, [A-Za-z_]+)*)  +(\S.*|\(.*)$", line)
            if argument and " = " not in line:
                items.append(f"- `{argument.group(1)}`: {escaped(argument.group(2))}")
            elif re.match(r" *- ", line):
                items.append(f"- {escaped(line.strip()[2:])}")
            elif items and line.startswith("  "):
                items[-1] += f" {escaped(line.strip())}"
            elif line.startswith("  "):
                formula.append(line)
            else:
                if items:
                    blocks.append("\n".join(items))
                    items = []
                if blocks and formula == [] and blocks[-1].endswith("\x00"):
                    blocks[-1] = blocks[-1][:-1] + f" {escaped(line)}\x00"
                else:
                    blocks.append(escaped(line) + "\x00")
        if items:
            blocks.append("\n".join(items))
        if formula:
            width = min(len(line) - len(line.lstrip()) for line in formula)
            blocks.append("```text\n" + "\n".join(line[width:] for line in formula) + "\n```")
        blocks = [block.removesuffix("\x00") for block in blocks]
    return "\n\n".join(blocks)
