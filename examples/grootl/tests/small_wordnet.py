"""Files in WordNet's format, made by hand, and larger ones of made-up words."""

from __future__ import annotations

import random
from pathlib import Path

LICENCE = "  1 This software and database is being provided to you, the LICENSEE  \n"

HAND_MADE = {
    "noun": [
        '00000100 03 n 02 oak 0 oak_tree 0 002 @ 00000200 n 0000 ~ 00000300 n 0000 | a deciduous tree that bears acorns; '
        '"great oaks from little acorns grow"  ',
        '00000200 03 n 0b ' + " ".join(f"tree_{letter} 0" for letter in "abcdefghijk") + ' 000 | a tall plant; has a trunk  ',
        '00000300 03 n 01 headway 1 000 | progress (as in the phrase "make headway"); "they made headway"; "no headway"  ',
        '00000400 03 n 01 cure-all 0 000 | "there is no cure-all"  ',
    ],
    "verb": ['00000100 29 v 02 cut_down 2 fell 0 001 @ 00000200 v 0000 02 + 08 00 + 09 02 | cause to fall; '
             '"to everything a time to be felled"- Anonymous; "he cut down the oak"  ',
             '00000200 29 v 01 sing 0 000 | produce tones: "she sings"; "birds sing  '],
    "adj": ['00000100 00 a 01 able 0 001 ! 00000200 a 0101 | (usually followed by `to\') having the means  ',
            '00000200 00 s 03 galore(ip) 0 ready_to_hand(p) 0 Afro-Asian(a) 0 001 & 00000100 a 0000 | easy to reach;  '],
    "adv": ['00000100 02 r 01 largely 0 000 | in large part | mostly  '],
}


def save_wordnet(folder: Path, lines: dict[str, list[str]] = HAND_MADE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, of_part in lines.items():
        (folder / f"data.{part}").write_text(LICENCE + "".join(f"{line}\n" for line in of_part))
    return folder


def save_made_up(folder: Path, count: int = 700, seed: int = 0) -> Path:
    """`count` synsets of made-up words, of which some come again, with definitions and examples of which some do too."""
    generator = random.Random(seed)
    syllables = "ba do ki lu me no pa ri su te".split()

    def word() -> str:
        return "".join(generator.choice(syllables) for _ in range(generator.randint(2, 3)))

    lines: dict[str, list[str]] = {"noun": [], "verb": [], "adj": [], "adv": []}
    definitions = [" ".join(word() for _ in range(generator.randint(5, 9))) for _ in range(count)]
    for number in range(count):
        part = generator.choice(list(lines))
        lemma = word() if generator.random() < 0.7 else f"{word()}_{word()}"
        lemma = lemma.capitalize() if generator.random() < 0.1 else lemma
        definition = generator.choice(definitions)
        example = f'; "{word()} {lemma.replace("_", " ")} {word()}"' if number % 3 == 0 else ""
        kind = {"noun": "n", "verb": "v", "adj": "s", "adv": "r"}[part]
        lines[part].append(f"{number:08} 00 {kind} 01 {lemma} 0 000 | {definition}{example}  ")
    return save_wordnet(folder, lines)
