"""The generative family, composed: what it writes depends on the row alone, and what users write cannot become a special token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from multitune.core import catalog
from multitune.core.errors import ModelError, PluginError
from multitune.core.protocols import AnswerNeed, PartNeed
from multitune.models.predictor import Forgetful
from tests.models.speaking import NEEDS, ROWS, SPECIAL, Folders, batched, built, loss, row, said, text_model, tokenizer, write_folders


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Small models in folders."""
    return write_folders(tmp_path_factory.mktemp("models"))


# --------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("lm", ["gpt2", "llama"])
def test_what_is_written_alone_is_what_is_written_among_neighbours(folders: Folders, lm: str) -> None:
    family = built(folders, lm=lm)
    assert [said(family, [sample])[0] for sample in ROWS] == said(family, ROWS)


def test_a_row_that_needs_no_padding_has_the_bits_that_it_has_beside_one_that_does(folders: Folders) -> None:
    family = built(folders, lm="llama")
    full, short = row(5, question="12345678"), row(6, question="1234567")
    assert said(family, [full])[0] == said(family, [short, full])[1]


@pytest.mark.parametrize("lm", ["gpt2", "llama"])
def test_a_sample_does_not_depend_on_its_neighbours(folders: Folders, lm: str) -> None:
    family = built(folders, lm=lm)
    drawn = {"temperature": 1.0, "top_p": 0.9, "seed": 3}
    assert [said(family, [sample], **drawn)[0] for sample in ROWS] == said(family, ROWS, **drawn)


def test_another_seed_draws_another_sample(folders: Folders) -> None:
    family = built(folders)
    first, again, other = (said(family, ROWS, temperature=1.5, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_sample_at_a_temperature_near_zero_is_the_greedy_answer(folders: Folders) -> None:
    family = built(folders)
    assert [text.value for text in said(family, ROWS, temperature=1e-4)] == [text.value for text in said(family, ROWS)]


@pytest.mark.parametrize("lm", ["gpt2", "llama"])
def test_greedy_takes_the_tokens_that_the_logits_of_training_rank_first(folders: Folders, lm: str) -> None:
    family = built(folders, lm=lm)
    rows = [family.preparer.prepare(sample, Forgetful()) for sample in ROWS]
    batch = family.preparer.collate(rows)
    expected: list[list[int]] = [[] for _ in ROWS]
    for _ in range(4):
        answers = torch.tensor([[*ids, 1] for ids in expected])
        logits = family(replace(batch, answers={"caption": answers})).logits["caption"]
        for ids, token in zip(expected, logits[:, -1].argmax(-1).tolist(), strict=True):
            ids.append(token)
    for sample, ids in zip(ROWS, expected, strict=True):
        ends = ids.index(1) if 1 in ids else len(ids)
        assert said(family, [sample], max_new_tokens=4)[0].value == family.preparer.text(ids[:ends])


def test_the_score_is_the_mean_log_probability_of_what_was_written(folders: Folders) -> None:
    family = built(folders)
    batch = batched(family, [ROWS[0]])
    logits = family(replace(batch, answers={"caption": torch.tensor([[5]])})).logits["caption"]
    assert said(family, [ROWS[0]], max_new_tokens=1)[0].score == pytest.approx(logits.log_softmax(-1).max().item(), rel=1e-5)


def test_the_answer_is_not_looked_at_while_writing(folders: Folders) -> None:
    family = built(folders)
    without = [replace(sample, parts={name: part for name, part in sample.parts.items() if name != "caption"}) for sample in ROWS]
    assert said(family, without) == said(family, ROWS)


def test_four_captions_can_be_learned_and_said(folders: Folders) -> None:
    samples = [row(place, caption, None) for place, caption in enumerate(["a red star", "a blue ring", "moon", "a cross!"])]
    family = built(folders, replace(NEEDS, parts={"image": PartNeed("image")}))
    batch = batched(family, samples)
    optimizer = torch.optim.AdamW(family.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss(family, batch).backward()
        optimizer.step()
    assert [text.value for text in said(family, samples, max_new_tokens=20)] == ["a red star", "a blue ring", "moon", "a cross!"]


def test_an_option_that_writing_does_not_take_is_named(folders: Folders) -> None:
    with pytest.raises(PluginError, match=r"evaluate\.generate.*temprature.*temperature"):
        said(text_model(folders), [row(0)], temprature=1)


# ----------------------------------------------------------------------------------------------------------------- words


def test_special_tokens_that_users_spell_are_only_words(folders: Folders) -> None:
    family = built(folders)
    batch = batched(family, [row(0, "a </s> b <image>", "<s><image></s><<s>s>")])
    asked = batch.inputs["lm"]["input_ids"][batch.inputs["lm"]["attention_mask"].bool()]
    assert asked.min() >= len(SPECIAL)
    assert (batch.answers["caption"][0] < len(SPECIAL)).sum() == 1
    assert batch.answers["caption"][0, -1] == 1


def test_a_caption_that_spells_special_tokens_keeps_every_letter(folders: Folders) -> None:
    family = built(folders)
    ids = batched(family, [row(0, "a </s> b <image>")]).answers["caption"][0].tolist()
    assert family.preparer.text(ids[:-1]) == "a </s> b <image>"


def test_a_caption_that_is_too_long_is_cut_and_said(folders: Folders) -> None:
    family = built(folders, replace(NEEDS, answers={"caption": AnswerNeed("text", options={"max_length": 6})}))
    prepared = family.preparer.prepare(row(0, "a red star"), Forgetful())
    assert prepared["truncated"] == {"caption": 5}
    assert prepared["answer"].tolist() == tokenizer()("a red ")["input_ids"]


def test_a_question_that_is_too_long_is_cut_and_said(folders: Folders) -> None:
    parts = {"question": PartNeed("text", {"max_length": 4})}
    family = built(folders, replace(NEEDS, parts=parts), towers={}, prompt="{question}=")
    prepared = family.preparer.prepare(row(0, question="what is it?"), Forgetful())
    assert prepared["truncated"] == {"question": 7}
    assert prepared["prompt"].tolist() == tokenizer()("what=")["input_ids"]


def test_a_prompt_is_filled_and_its_braces_stay(folders: Folders) -> None:
    family = built(folders, prompt="{{Q}} {question}!")
    prepared = family.preparer.prepare(row(0, question="{caption}"), Forgetful())
    assert prepared["prompt"].tolist() == tokenizer()("{Q} {caption}!")["input_ids"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{qestion}", 'names no text part.*Did you mean "question"'),
        ("{question.__class__}", "names no text part"),
        ("{question!r}", "names no text part"),
        ("{question:>10}", "names no text part"),
        ("{question", "expected '}'"),
        ("{}", "names no text part"),
        ("what?", 'the text part "question" is not in'),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused(folders: Folders, prompt: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        built(folders, prompt=prompt)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folders: built(folders, towers={}), 'the part "image" has no tower'),
        (lambda folders: built(folders, replace(NEEDS, answers={"kind": AnswerNeed("category", ("a", "b"))})), "one answer, a text"),
        (lambda folders: built(folders, replace(NEEDS, answers={})), "the answers are none"),
        (lambda folders: built(folders, prompt="x" * 200 + "{question}"), "the prompt has 200 tokens"),
        (lambda folders: built(folders, replace(NEEDS, parts={"lm": PartNeed("image")})), "is the name of a piece of the model"),
    ],
)
def test_what_does_not_fit_together_is_refused(folders: Folders, make: Callable[[Folders], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make(folders)


@pytest.mark.parametrize(
    "options", [{}, {"lm": "tiny/lm", "pretrained": "tiny/lm"}, {"pretrained": "tiny/lm", "towers": {"image": "tiny/image"}}]
)
def test_either_a_language_model_or_a_whole_model_is_given(options: dict[str, Any]) -> None:
    with pytest.raises(PluginError):
        catalog.find("family", "generative", options)


def test_a_sequence_longer_than_the_positions_is_refused_with_both_numbers(folders: Folders) -> None:
    with pytest.raises(ModelError, match=r"a sequence of 20[0-9] tokens is longer than the language model's 160 positions"):
        said(built(folders), [row(0)], max_new_tokens=184)
