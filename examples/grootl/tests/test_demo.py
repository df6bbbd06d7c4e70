"""The demo from end to end, as small as it goes, and the page that is made of its results."""

import copy
import json
import re
import sys

import pytest
from small_wordnet import save_made_up

from grootl import demo, page
from grootl.configuration import MODES


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    save_made_up(folder / "wordnet", 4000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["demo", "--smoke", "--data", str(folder / "wordnet"), "--output", str(folder / "run"),
                                    "--docs", str(folder / "docs")])
        demo.main()
    return folder / "docs"


@pytest.fixture
def results(docs):
    return json.loads((docs / "grootl" / "demo.json").read_text())


def test_every_mode_is_compared_with_no_change(results):
    rows = [(row["mode"], row["trained"], row["seed"]) for row in results["rows"]]
    assert rows == [(mode, False, None) for mode in MODES] + [(mode, True, seed) for seed in (0, 1) for mode in MODES]
    for row in results["rows"]:
        assert set(row["scores"]) >= set(page.SCORES)
        assert 0 <= row["scores"]["choice"] <= 100 and row["scores"]["bits_per_byte"] > 0
        assert len(row["said"]) == len(results["requests"]) == 3
        assert not row["trained"] or row["tokens_per_second"] > 0
    # The modes are different models, and the seeds different runs.
    assert len({row["scores"]["last_word_perplexity"] for row in results["rows"]}) == 9
    assert {(row["mode"], row["cached"]) for row in results["generation"]} == {
        (mode, cached) for mode in MODES for cached in (True, False)}


def test_training_lowers_what_it_is_trained_on(results):
    bits = {(row["mode"], row["seed"]): row["scores"]["bits_per_byte"] for row in results["rows"]}
    assert all(bits[mode, seed] < bits[mode, None] for mode in MODES for seed in (0, 1))


def test_the_page_has_every_row(docs, results):
    text = (docs / "grootl.md").read_text()
    assert "{{" not in text and (docs / "grootl" / "demo.svg").stat().st_size > 1000
    for name in ("no change", "original, not trained", "causal, not trained",
                 "LoRA, chain", "LoRA, original", "LoRA, causal"):
        assert f"\n| {name} |" in text
    assert f"| no change | {results['rows'][0]['scores']['response_perplexity']:,.1f} |" in text
    assert "| GrootL | 47.2 |" in text and "Not ours" in text


def test_numbers_of_the_page_come_from_the_results(docs, results, tmp_path):
    template = page.TEMPLATE.read_text()
    changed = copy.deepcopy(results)
    for row in changed["rows"]:
        row["scores"] = {name: 7.0 + (row["seed"] or 0) for name in row["scores"]}
    (tmp_path / "grootl").mkdir()
    (tmp_path / "grootl" / "demo.json").write_text(json.dumps(changed))
    text = page.write_page(tmp_path).read_text()
    assert "| no change | 7.0 | 7 | 7.000 | 7.0 |" in text
    assert "| LoRA, chain | 7.5 ± 0.7 | 8 ± 1 | 7.500 ± 0.707 |" in text
    assert "0 of these 14 differences" in text and "| causal − chain | +0.0 ± 0.0 |" in text
    # What the template itself says of measured things is only the paper's.
    assert re.findall(r"\d+\.\d+", template.partition("## The paper's numbers")[0].replace("m is 0.3", "")) == []


def test_a_difference_that_stands_out_is_named(results):
    changed = copy.deepcopy(results)
    for row in changed["rows"]:
        row["scores"] = {name: 50 + 0.1 * (row["seed"] or 0) for name in row["scores"]}
        if row["mode"] == "causal" and row["trained"]:
            row["scores"]["choice"] += 3.05 - 0.1 * row["seed"]
    text = page.differences(changed)
    assert "1 of these 14 differences stand out" in text and text.endswith("causal's choice (+3.0 ± 0.1).")


def test_one_seed_has_no_deviation(results):
    changed = results | {"rows": [row for row in results["rows"] if row["seed"] != 1]}
    assert "±" not in page.scores_table(changed) and "There is one seed" in page.differences(changed)


def test_the_benchmarks_results_are_shown_where_they_are(docs, tmp_path):
    (tmp_path / "grootl").mkdir()
    (tmp_path / "grootl" / "demo.json").write_text((docs / "grootl" / "demo.json").read_text())
    assert "`python -m grootl.bench` was not run here" in page.write_page(tmp_path).read_text()
    (tmp_path / "grootl" / "speed.json").write_text(json.dumps({
        "machine": {"cores": 2},
        "train": {"what": "training step", "seconds": {"transformers": [9.0, 8.0], "chain": [0.5, 1.0]},
                  "processor_seconds": {"transformers": [7.0, 7.5], "chain": [0.5, 0.25]},
                  "times_faster": {"chain": 16.0}, "times_faster_by_processor": {"chain": 28.0}},
        "memory": {"what": "peak", "megabytes": {"chain": {"16": 3.0, "64": 3.5}}}}))
    text = page.write_page(tmp_path).read_text()
    assert "| transformers | 8.000 | 7.000 |  |  |" in text and "| chain | 0.500 | 0.250 | 16.0 | 28.0 |" in text
    assert "|  | MB, state size 16 | MB, state size 64 |" in text and "| chain | 3.0 | 3.5 |" in text


def test_results_that_are_missing_or_others_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="demo.json: is missing, `python -m grootl.demo` makes it"):
        page.write_page(tmp_path)
    (tmp_path / "grootl").mkdir()
    for content, message in (("{", "isn't JSON"), ("[]", "has no 'rows'")):
        (tmp_path / "grootl" / "demo.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            page.write_page(tmp_path)


@pytest.mark.parametrize("arguments, message", [
    (["--data", "nowhere"], "nowhere: must be a folder with WordNet's files"),
    (["--seeds", "0"], "--seeds must be at least 1")])
def test_what_a_user_gets_wrong_is_said_before_anything_is_made(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo", "--smoke", "--output", str(tmp_path / "run"), *arguments])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        demo.main()
    assert not (tmp_path / "run").exists()
