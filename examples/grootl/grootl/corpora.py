"""Packaged English text: WordNet's glosses and example sentences as plain text, instructions and questions.

    python -m grootl.corpora --output data                   # of Debian's wordnet-base
    python -m grootl.corpora --output data --data FOLDER     # of a folder with data.noun, data.verb, data.adj, data.adv
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .command_line import run
from .data import format_prompt

WORDNET = Path("/usr/share/wordnet")  # where Debian's wordnet-base puts it

_TYPES = {"noun": "n", "verb": "v", "adj": "as", "adv": "r"}
_KINDS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}
_LINE = re.compile(r"\d{8} \d\d (?P<type>[nvasr]) (?P<count>[0-9a-f]{2}) (?P<fields>.+?) \| (?P<gloss>.*)")
_MARKER = re.compile(r"\((a|p|ip)\)$")  # of adjectives that only stand before a noun, behind it, right behind it
_FIRST_EXAMPLE = re.compile(r'(?:^|[;:,])\s*"')  # other quotation marks belong to the definition


class Synset(NamedTuple):
    """Words of one meaning.

    Fields:
        kind: "noun", "verb", "adjective" or "adverb".
        lemmas: the words, at least one, in WordNet's order; some are several words, with spaces.
        definition: without the examples; empty where the gloss is nothing but examples.
        examples: sentences or phrases with one of the words.
    """

    kind: str
    lemmas: tuple[str, ...]
    definition: str
    examples: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The first lemma, the one that texts and questions are about."""
        return self.lemmas[0]


class Parts(NamedTuple):
    """Synsets to pretrain on, to fine-tune on and to evaluate on."""

    pretraining: list[Synset]
    instructions: list[Synset]
    held_out: list[Synset]


def read_wordnet(folder: str | os.PathLike | None = None) -> list[Synset]:
    """All synsets of WordNet, nouns first, in the order of its files.

    Arguments:
        folder: with `data.noun`, `data.verb`, `data.adj`, `data.adv`; by default where Debian's wordnet-base has them.

    Raises FileNotFoundError if one of them is missing, ValueError with file and line where one isn't WordNet's.

    >>> read_wordnet()[0].definition     # doctest: +SKIP
    'that which is perceived or known or inferred to have its own distinct existence (living or nonliving)'

    Source: the format is that of the manual page wndb(5) of WordNet 3.0.
    """
    directory = WORDNET if folder is None else Path(folder)
    paths = {part: directory / f"data.{part}" for part in _TYPES}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing and folder is None:
        raise FileNotFoundError(f"{directory}: WordNet isn't there; `apt-get install wordnet-base` installs it, or "
                                "name the folder that has it")
    if missing:
        raise FileNotFoundError(f"{directory}: must be a folder with WordNet's files, {', '.join(missing)} "
                                f"{'is' if len(missing) == 1 else 'are'} missing")
    return [synset for part, path in paths.items() for synset in _read(path, _TYPES[part])]


def _read(path: Path, types: str) -> list[Synset]:
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: isn't WordNet's, it is not text at byte {error.start}") from None
    # The licence at the beginning is indented.
    synsets = [_synset(line, types, f"{path}:{number}") for number, line in enumerate(lines, 1)
               if not line.startswith("  ")]
    if not synsets:
        raise ValueError(f"{path}: isn't WordNet's, it has no synsets")
    return synsets


def _synset(line: str, types: str, where: str) -> Synset:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"{where}: isn't WordNet's, where a line is offset, file, type, words, pointers, '|', gloss; "
                         f"got {line[:40]!r}")
    if match["type"] not in types:
        raise ValueError(f"{where}: the type must be one of {', '.join(types)}, got {match['type']}")
    fields, count = match["fields"].split(" "), int(match["count"], 16)
    # Behind the words and their numbers there is how many pointers follow, in three digits.
    if not count or len(fields) <= 2 * count or not re.fullmatch(r"\d{3}", fields[2 * count]):
        raise ValueError(f"{where}: there must be as many words as the line says, {count}")
    lemmas = tuple(_MARKER.sub("", word).replace("_", " ") for word in fields[:2 * count:2])
    return Synset(_KINDS[match["type"]], lemmas, *_parted(match["gloss"]))


def _parted(gloss: str) -> tuple[str, tuple[str, ...]]:
    """A gloss's definition and examples; who said them, which some have behind them, is left out."""
    first = _FIRST_EXAMPLE.search(gloss)
    definition, rest = (gloss, "") if first is None else (gloss[:first.start()], gloss[first.start():])
    examples = (example.strip() for example in re.findall(r'"([^"]*)"', rest))
    return definition.strip(" ;:,"), tuple(example for example in examples if example)


# ---- Parts ----

def split(synsets: Iterable[Synset], instructions: float = 0.15, held_out: float = 0.05) -> Parts:
    """Parts of these shares, between which nothing leaks: no word that one part's texts are about is any other's.

    A hash of the word decides, in lower case, so a synset stays in its part whatever others there are. What is held out
    is also without the definitions and examples that another part has word for word. Related words (quick, quickly) may
    be in different parts, and so may a synset's lemmas but the first, which texts don't mention.

    Raises ValueError unless the shares are positive and less than 1 together.
    """
    if not (instructions > 0 and held_out > 0 and instructions + held_out < 1):
        raise ValueError(f"instructions and held_out must be positive shares and less than 1 together, got "
                         f"{instructions} and {held_out}")
    parts = Parts([], [], [])
    for synset in synsets:
        share = zlib.crc32(synset.word.casefold().encode()) / 2**32
        part = parts.held_out if share < held_out else \
            parts.instructions if share < held_out + instructions else parts.pretraining
        part.append(synset)
    seen = {text for synset in parts.pretraining + parts.instructions for text in (synset.definition, *synset.examples)}
    return parts._replace(held_out=[synset for synset in parts.held_out
                                    if seen.isdisjoint((synset.definition, *synset.examples))])


# ---- Texts, instructions and questions ----

def entry(synset: Synset) -> str:
    """A dictionary's entry, of one line.

    >>> entry(Synset("noun", ("oak", "oak tree"), "a deciduous tree", ("great oaks grow",)))
    'oak (noun): a deciduous tree. great oaks grow.'
    """
    sentences = (text if text.endswith((".", "!", "?")) else f"{text}."
                 for text in (synset.definition, *synset.examples) if text)
    return " ".join((_name(synset), *sentences))


def _name(synset: Synset) -> str:
    return f"{synset.word} ({synset.kind}):"


def passages(synsets: Iterable[Synset], entries: int = 8, seed: int = 0) -> list[str]:
    """Texts of so many entries each, one a line, in a random order; the last may have fewer."""
    lines = [entry(synset) for synset in _shuffled(synsets, seed)]
    return ["\n".join(lines[start:start + entries]) for start in range(0, len(lines), entries)]


def instruction_pairs(synsets: Iterable[Synset], seed: int = 0) -> list[dict[str, str]]:
    """Instructions and responses in the Alpaca format, in a random order: for each synset, as far as it goes, to define
    its word, to find it by its definition and to use it in a sentence."""
    pairs = []
    for synset in synsets:
        if synset.definition:
            pairs.append((definition_request(synset), synset.definition))
            pairs.append((f"Which {synset.kind} has this meaning: {synset.definition}?", synset.word))
        pairs += [(f'Use the {synset.kind} "{synset.word}" in a sentence.', example) for example in synset.examples
                  if synset.word.casefold() in example.casefold()]
    return [{"instruction": instruction, "input": "", "output": output}
            for instruction, output in _shuffled(pairs, seed)]


def definition_request(synset: Synset) -> str:
    return f'Define the {synset.kind} "{synset.word}".'


def choices(synsets: Iterable[Synset], instructed: bool = False, count: int = 4, seed: int = 0) -> list[dict]:
    """Questions which of `count` definitions is a word's, in a random order.

    The other definitions are those of other words of the same kind. The question is the beginning of an entry, as in
    `passages`, or, if `instructed`, an instruction as in `instruction_pairs`.

    Returns {"question": str, "choices": [str, ...], "answer": int} for each synset. Raises ValueError for a count below
    2, and where a kind has too few definitions.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2 definitions to choose from, got {count}")
    generator = random.Random(seed)
    questions = []
    synsets = [synset for synset in _shuffled(synsets, seed) if synset.definition]
    for kind in dict.fromkeys(synset.kind for synset in synsets):
        of_kind = [synset for synset in synsets if synset.kind == kind]
        definitions = sorted({synset.definition for synset in of_kind})
        of_word = defaultdict(set)
        for synset in of_kind:
            of_word[synset.word.casefold()].add(synset.definition)
        for synset in of_kind:
            true = of_word[synset.word.casefold()]
            others = len(definitions) - len(true)
            if others < count - 1:
                raise ValueError(f"there must be at least {count - 1} definitions of {kind}s other than {synset.word!r} "
                                 f"to choose from, got {others}")
            false = [text for text in generator.sample(definitions, count - 1 + len(true))
                     if text not in true][:count - 1]
            answer = generator.randrange(count)
            question, gap = (format_prompt(definition_request(synset)), "") if instructed else (_name(synset), " ")
            texts = [*false[:answer], synset.definition, *false[answer:]]
            questions.append({"question": question, "choices": [gap + text for text in texts], "answer": answer})
    return _shuffled(questions, seed)


def last_words(synsets: Iterable[Synset], least: int = 5, seed: int = 0) -> list[dict[str, str]]:
    """Beginnings of entries, up to the last word of the definition, and that word, in a random order.

    Returns {"context": str, "word": str} for each definition of at least `least` words whose last one is letters only.
    """
    definitions = [(_name(synset), synset.definition.split()) for synset in _shuffled(synsets, seed)]
    return [{"context": " ".join((name, *words[:-1])), "word": words[-1]} for name, words in definitions
            if len(words) >= least and words[-1].isalpha()]


def _shuffled(items: Iterable, seed: int) -> list:
    items = list(items)
    random.Random(seed).shuffle(items)
    return items


# ---- Files ----

def write(parts: Parts, output: str | os.PathLike, *, questions: int | None = None, texts: int | None = None) -> Path:
    """The parts as files of a folder, which is made:

    - `pretraining.txt`: passages with an empty line between them, what `python -m grootl.pretrain` takes;
    - `instructions.json`: what `python -m grootl.finetune` takes;
    - `choice.jsonl`, `last_word.jsonl`, `text.jsonl`: what `python -m grootl.evaluate` takes, of what is held out;
    - `held_out.json`: instructions of what is held out;
    - `instructed/choice.jsonl`: the same questions as instructions.

    Arguments:
        questions, texts: the most questions and held out instructions of each kind, and the most texts; by default all.

    Returns the folder.
    """
    folder = Path(output)
    (folder / "instructed").mkdir(parents=True, exist_ok=True)
    (folder / "pretraining.txt").write_text("\n\n".join(passages(parts.pretraining)) + "\n", encoding="utf-8")
    for name, pairs in (("instructions", instruction_pairs(parts.instructions)),
                        ("held_out", instruction_pairs(parts.held_out)[:questions])):
        (folder / f"{name}.json").write_text(json.dumps(pairs, indent=1), encoding="utf-8")
    _write_lines(folder / "choice.jsonl", choices(parts.held_out)[:questions])
    _write_lines(folder / "instructed" / "choice.jsonl", choices(parts.held_out, instructed=True)[:questions])
    _write_lines(folder / "last_word.jsonl", last_words(parts.held_out)[:questions])
    _write_lines(folder / "text.jsonl", [{"text": text} for text in passages(parts.held_out)[:texts]])
    return folder


def _write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grootl.corpora", description=__doc__.split("\n")[0])
    parser.add_argument("--output", required=True, help="the folder for the files")
    parser.add_argument("--data", help=f"the folder with WordNet's files ({WORDNET})")
    arguments = parser.parse_args()
    parts = split(read_wordnet(arguments.data))
    write(parts, arguments.output)
    print(f"{arguments.output}: " + ", ".join(f"{len(part)} synsets for {name.replace('_', '-')}"
                                              for name, part in parts._asdict().items()))


if __name__ == "__main__":
    run(main)
