"""WordNet's format with its oddities, parts that don't leak, and what is made of them."""

import json
import sys

import pytest
from small_wordnet import HAND_MADE, save_made_up, save_wordnet

from grootl import corpora
from grootl.corpora import (
    Synset, choices, entry, instruction_pairs, last_words, passages, read_wordnet, split, write)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    return read_wordnet(save_made_up(tmp_path_factory.mktemp("wordnet")))


def test_reading_knows_the_formats_oddities(tmp_path):
    synsets = {synset.word: synset for synset in read_wordnet(save_wordnet(tmp_path))}
    assert synsets["oak"] == Synset("noun", ("oak", "oak tree"), "a deciduous tree that bears acorns",
                                    ("great oaks from little acorns grow",))
    assert len(synsets["tree a"].lemmas) == 11  # the count is hexadecimal
    assert synsets["tree a"].definition == "a tall plant; has a trunk"
    assert synsets["headway"][2:] == ('progress (as in the phrase "make headway")', ("they made headway", "no headway"))
    assert synsets["cure-all"][2:] == ("", ("there is no cure-all",))
    assert synsets["cut down"] == Synset("verb", ("cut down", "fell"), "cause to fall",
                                         ("to everything a time to be felled", "he cut down the oak"))
    assert synsets["sing"][2:] == ("produce tones", ("she sings",))  # a quotation that doesn't end is none
    assert synsets["able"][2:] == ("(usually followed by `to') having the means", ())
    assert synsets["galore"][:3] == ("adjective", ("galore", "ready to hand", "Afro-Asian"), "easy to reach")
    assert synsets["largely"].definition == "in large part | mostly"
    assert [synset.kind for synset in synsets.values()] == ["noun"] * 4 + ["verb"] * 2 + ["adjective"] * 2 + ["adverb"]


def test_missing_files_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="data.noun, data.verb, data.adj, data.adv are missing"):
        read_wordnet(tmp_path / "nowhere")
    save_wordnet(tmp_path)
    (tmp_path / "data.verb").unlink()
    with pytest.raises(FileNotFoundError, match="data.verb is missing"):
        read_wordnet(tmp_path)
    monkeypatch.setattr(corpora, "WORDNET", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="apt-get install wordnet-base"):
        read_wordnet()


@pytest.mark.parametrize("line, message", [
    ("word,definition", "data.noun:2: isn't WordNet's.*'word,definition'"),
    ("", "data.noun:2: isn't WordNet's"),
    (HAND_MADE["verb"][0], "data.noun:2: the type must be one of n, got v"),
    ("00000100 03 n 02 oak 0 000 | a tree", "data.noun:2: there must be as many words as the line says, 2"),
    ("00000100 03 n 00 000 | nothing", "data.noun:2: .*as many words as the line says, 0"),
])
def test_a_line_that_is_not_wordnets_is_named(tmp_path, line, message):
    with pytest.raises(ValueError, match=message):
        read_wordnet(save_wordnet(tmp_path, HAND_MADE | {"noun": [line]}))


def test_files_that_are_not_wordnets_are_named(tmp_path):
    with pytest.raises(ValueError, match="data.adv: isn't WordNet's, it has no synsets"):
        read_wordnet(save_wordnet(tmp_path, HAND_MADE | {"adv": []}))
    (tmp_path / "data.adj").write_bytes(b"\x80\x04 pickled")
    with pytest.raises(ValueError, match="data.adj: isn't WordNet's, it is not text at byte 0"):
        read_wordnet(tmp_path)


def assert_nothing_leaks(parts):
    words = [{synset.word.casefold() for synset in part} for part in parts]
    assert not words[0] & words[1] and not words[0] & words[2] and not words[1] & words[2]
    texts = [{text for synset in part for text in (synset.definition, *synset.examples)} - {""} for part in parts]
    assert not texts[2] & (texts[0] | texts[1])


def test_parts_do_not_leak(made_up):
    parts = split(made_up, 0.3, 0.2)
    assert_nothing_leaks(parts)
    assert all(len(part) > 50 for part in parts)
    # Without the rule about definitions there would be leaks to find here.
    assert sum(map(len, parts)) < len(made_up)


def test_a_synset_stays_in_its_part_whatever_others_there_are(made_up):
    all_of_them, some = split(made_up, 0.3, 0.2), split(made_up[::2], 0.3, 0.2)
    assert set(some.pretraining) <= set(all_of_them.pretraining)
    assert set(some.instructions) <= set(all_of_them.instructions)
    assert split(made_up, 0.3, 0.2) == all_of_them


@pytest.mark.parametrize("shares", [(0, 0.1), (0.1, 0), (0.6, 0.4), (float("nan"), 0.1)])
def test_shares_must_leave_something_for_each_part(shares):
    with pytest.raises(ValueError, match="instructions and held_out must be positive shares"):
        split([], *shares)


def test_texts_have_all_entries_once(made_up):
    lines = [line for text in passages(made_up, 3) for line in text.split("\n")]
    assert sorted(lines) == sorted(map(entry, made_up))
    assert passages(made_up, 3) == passages(made_up, 3) != passages(made_up, 3, seed=1)
    assert entry(Synset("noun", ("cure-all",), "", ("Is there one?",))) == "cure-all (noun): Is there one?"


def test_instructions_are_complete():
    oak = Synset("noun", ("oak", "oak tree"), "a tree", ("great Oaks grow", "like trees"))
    assert sorted(pair["output"] for pair in instruction_pairs([oak])) == ["a tree", "great Oaks grow", "oak"]
    assert {pair["instruction"] for pair in instruction_pairs([oak])} == {
        'Define the noun "oak".', "Which noun has this meaning: a tree?", 'Use the noun "oak" in a sentence.'}
    # Without a definition there is nothing to define.
    assert instruction_pairs([oak._replace(definition="", examples=())]) == []


def test_choices_have_one_right_answer(made_up):
    questions = choices(made_up)
    definitions = {}
    for synset in made_up:
        definitions.setdefault(f"{synset.word.casefold()} ({synset.kind}):", set()).add(f" {synset.definition}")
    assert len(questions) == len(made_up)
    for question in questions:
        right = definitions[question["question"][0].lower() + question["question"][1:]]
        assert len(set(question["choices"])) == 4
        assert [number for number, choice in enumerate(question["choices"]) if choice in right] == [question["answer"]]
    counts = [sum(question["answer"] == number for question in questions) for number in range(4)]
    assert min(counts) > len(questions) / 6
    assert questions == choices(made_up) != choices(made_up, seed=1)


def test_the_same_questions_are_asked_as_instructions(made_up):
    for told, asked in zip(choices(made_up, instructed=True), choices(made_up)):
        assert told["answer"] == asked["answer"]
        assert [f" {choice}" for choice in told["choices"]] == asked["choices"]
        word, kind = asked["question"].removesuffix("):").split(" (")
        assert f'Define the {kind} "{word}".\n\n### Response:\n' in told["question"]


def test_too_few_definitions_to_choose_from_are_an_error():
    two = [Synset("noun", ("oak",), "a tree"), Synset("noun", ("elm",), "another")]
    assert len(choices(two, count=2)) == 2
    with pytest.raises(ValueError, match="at least 2 definitions of nouns other than '(oak|elm)' to choose from, got 1"):
        choices(two, count=3)
    with pytest.raises(ValueError, match="at least 1 definitions of nouns other than 'oak' to choose from, got 0"):
        choices([two[0], two[0]._replace(definition="a tall tree")], count=2)  # both are right
    with pytest.raises(ValueError, match="count must be at least 2"):
        choices(two, count=1)


def test_last_words_are_words():
    synsets = [Synset("noun", ("oak",), "a tree that bears acorns"), Synset("noun", ("elm",), "a tree"),
               Synset("noun", ("ash",), "a tree (of many kinds)")]
    assert last_words(synsets) == [{"context": "oak (noun): a tree that bears", "word": "acorns"}]


def test_the_command_writes_what_the_others_read(tmp_path, monkeypatch, capsys):
    save_made_up(tmp_path / "wordnet", 4000)
    monkeypatch.setattr(sys, "argv", ["corpora", "--output", str(tmp_path / "data"), "--data", str(tmp_path / "wordnet")])
    corpora.main()
    assert "synsets for pretraining" in capsys.readouterr().out
    fields = {"choice.jsonl": {"question", "choices", "answer"}, "instructed/choice.jsonl": {"question", "choices", "answer"},
              "last_word.jsonl": {"context", "word"}, "text.jsonl": {"text"}}
    for name, of_row in fields.items():
        rows = [json.loads(line) for line in (tmp_path / "data" / name).read_text().splitlines()]
        assert rows and all(set(row) == of_row for row in rows)
    pairs = json.loads((tmp_path / "data" / "instructions.json").read_text())
    assert pairs and all(set(pair) == {"instruction", "input", "output"} and pair["output"] for pair in pairs)


def test_files_can_be_shorter(tmp_path, made_up):
    write(split(made_up, 0.3, 0.2), tmp_path, questions=5, texts=2)
    lengths = {path.name: len(path.read_text().splitlines()) for path in tmp_path.glob("*.jsonl")}
    assert lengths == {"choice.jsonl": 5, "last_word.jsonl": 5, "text.jsonl": 2}


@pytest.mark.skipif(not corpora.WORDNET.is_dir(), reason="Debian's wordnet-base isn't installed")
def test_debians_wordnet():
    synsets = read_wordnet()
    assert len(synsets) == 117_659
    assert 48_000 < sum(len(synset.examples) for synset in synsets) < 49_000
    assert not any('"' in example or "_" in lemma for synset in synsets for example in synset.examples
                   for lemma in synset.lemmas)
    parts = split(synsets)
    assert_nothing_leaks(parts)
    assert len(parts.held_out) > 5000
