"""The generative family, composed: towers, a connector and a language model, on small models made from configs."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from multitune.core import catalog
from multitune.core.errors import ModelError, PluginError
from multitune.core.protocols import AnswerNeed, Batch, Needs, Part, PartNeed, Prediction, Sample, Text
from multitune.core.randomness import generator
from multitune.models import anatomy
from multitune.models.load import Weights
from multitune.models.pooling import pool_tokens
from multitune.models.predictor import Forgetful, Predictor

SPECIAL = ["<s>", "</s>", "<pad>", "<image>"]
VOCABULARY = len(SPECIAL) + 256
IGNORED = -100
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 160, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 160,
}
NEEDS = Needs({"image": PartNeed("image"), "question": PartNeed("text")}, {"caption": AnswerNeed("text")})
Folders = Mapping[str, Path]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Small models in folders: a picture tower and two language models, all weights drawn."""
    root = tmp_path_factory.mktemp("models")
    torch.default_generator.manual_seed(1)
    vit = AutoConfig.for_model(
        "vit", hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    AutoModel.from_config(vit).save_pretrained(root / "vit")
    (root / "vit" / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}'
    )
    for name, sizes in {"gpt2": GPT2, "llama": LLAMA}.items():
        config = AutoConfig.for_model(name, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, pad_token_id=2, **sizes)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data.mul_(4)  # as drawn, all logits are so near each other that a wrong token would hardly show
        model.save_pretrained(root / name)
        tokenizer().save_pretrained(root / name)
    return {path.name: path for path in root.iterdir()}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and four special ones."""
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *sorted(ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        model_max_length=1000,
    )


def built(folders: Folders, needs: Needs = NEEDS, weights: Weights | None = None, lm: str = "gpt2", **options: Any) -> Any:
    given = {"lm": {"pretrained": str(folders[lm])}, "towers": {"image": {"pretrained": str(folders["vit"])}}} | options
    return catalog.find("family", "generative", given).build(needs, weights or Weights())


def text_model(folders: Folders, lm: str = "gpt2", **options: Any) -> Any:
    """A language model alone."""
    return built(folders, replace(NEEDS, parts={}), lm=lm, towers={}, **options)


def row(place: int, caption: str | None = "a red star", question: str | None = "what is it?", picture: bool = True) -> Sample:
    random = generator("picture", place)
    parts = {"image": Part("image", random.integers(0, 255, (12 + place, 20, 3), dtype=np.uint8))} if picture else {}
    parts |= {} if question is None else {"question": Part("text", question)}
    parts |= {} if caption is None else {"caption": Part("text", caption)}
    return Sample(f"row-{place}", parts)


ROWS = [
    row(0),
    row(1, "a blue ring on the left", "which?"),
    row(2, "no", "and this? " * 3),
    row(3, "a moon", picture=False),
    row(4, "x", None),
]


def batched(family: Any, samples: Sequence[Sample]) -> Batch:
    return family.preparer.collate([family.preparer.prepare(sample, Forgetful()) for sample in samples])


def loss(family: Any, batch: Batch) -> torch.Tensor:
    logits = family(batch).logits["caption"]
    return functional.cross_entropy(logits.flatten(0, 1), batch.answers["caption"].flatten(), ignore_index=IGNORED, reduction="sum")


def said(family: Any, samples: Sequence[Sample], **generate: Any) -> list[Text]:
    predictions: list[Prediction] = Predictor(family, group_rows=4, generate={"max_new_tokens": 8} | generate).predict(samples)
    return [prediction.answers["caption"] for prediction in predictions]


# ------------------------------------------------------------------------------------------------------------------ loss


@pytest.mark.parametrize("lm", ["gpt2", "llama"])
def test_the_loss_of_a_batch_is_the_sum_of_its_rows_alone(folders: Folders, lm: str) -> None:
    family = built(folders, lm=lm)
    alone = [loss(family, batched(family, [sample])) for sample in ROWS]
    assert loss(family, batched(family, ROWS)).item() == pytest.approx(sum(one.item() for one in alone), rel=1e-6)


@pytest.mark.parametrize("lm", ["gpt2", "llama"])
def test_the_gradients_of_a_batch_are_the_sums_of_its_rows_alone(folders: Folders, lm: str) -> None:
    family = built(folders, lm=lm)
    loss(family, batched(family, ROWS)).backward()
    together = {name: parameter.grad.clone() for name, parameter in family.named_parameters() if parameter.grad is not None}
    family.zero_grad()
    for sample in ROWS:
        loss(family, batched(family, [sample])).backward()
    norm = torch.stack([gradient.norm() for gradient in together.values()]).norm()
    for name, parameter in family.named_parameters():
        if name in together:
            assert (parameter.grad - together[name]).norm() <= 1e-5 * norm, name


@pytest.mark.parametrize("lm", ["gpt2", "llama"])
def test_a_language_model_alone_has_the_loss_that_transformers_gives_the_caption(folders: Folders, lm: str) -> None:
    family = text_model(folders, lm)
    text = "the picture shows a red star"
    ids = torch.tensor([[0, *tokenizer()(text)["input_ids"], 1]])
    plain = AutoModelForCausalLM.from_pretrained(folders[lm])
    expected = plain(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)
    assert loss(family, batched(family, [row(0, text, None, picture=False)])).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_is_on_the_answer_alone_as_computed_by_hand(folders: Folders) -> None:
    family = built(folders, prompt="Q: {question} A:")
    batch = batched(family, [ROWS[0]])
    embed = family.lm.get_input_embeddings()
    vision = family.towers["image"](**batch.inputs["image"]).last_hidden_state
    prompt, answer = tokenizer()("Q: what is it? A:")["input_ids"], [*tokenizer()("a red star")["input_ids"], 1]
    sequence = [embed(torch.tensor([[0]])), family.connector["image"].projection(vision), embed(torch.tensor([prompt + answer]))]
    logits = family.lm(inputs_embeds=torch.cat(sequence, 1)).logits[0]
    expected = functional.cross_entropy(logits[-len(answer) - 1 : -1], torch.tensor(answer), reduction="sum")
    assert loss(family, batch).item() == pytest.approx(expected.item(), rel=1e-6)


def test_logits_stand_for_the_answer_alone(folders: Folders) -> None:
    family = built(folders)
    batch = batched(family, ROWS)
    assert family(batch).logits["caption"].shape == (*batch.answers["caption"].shape, VOCABULARY)
    assert batch.answers["caption"][0].tolist()[:11] == [*tokenizer()("a red star")["input_ids"], 1]


def test_an_absent_picture_is_left_out_whatever_its_neighbours_show(folders: Folders) -> None:
    family = built(folders)
    absent = row(3, picture=False)
    among = [family(batched(family, [absent, row(place)])).logits["caption"][0] for place in (5, 9)]
    without = built(folders, replace(NEEDS, parts={"question": PartNeed("text")}), towers={})
    torch.testing.assert_close(among[0], among[1], rtol=0, atol=0)
    torch.testing.assert_close(among[0], without(batched(without, [absent])).logits["caption"][0], rtol=1e-5, atol=1e-5)


def test_a_present_picture_moves_the_loss(folders: Folders) -> None:
    family = built(folders)
    assert loss(family, batched(family, [row(0)])).item() != loss(family, batched(family, [row(0, picture=False)])).item()


def test_rows_without_an_answer_add_nothing(folders: Folders) -> None:
    family = built(folders)
    batch = batched(family, [row(0), row(1, caption=None)])
    assert batch.presence["caption"].tolist() == [True, False]
    assert (batch.answers["caption"][1] == IGNORED).all()
    assert loss(family, batch).item() == pytest.approx(loss(family, batched(family, [row(0)])).item(), rel=1e-6)


def test_a_model_without_towers_and_with_text_parts_reads_them(folders: Folders) -> None:
    family = built(folders, replace(NEEDS, parts={"question": PartNeed("text")}), towers={})
    losses = {loss(family, batched(family, [row(0, question=text, picture=False)])).item() for text in ("what?", "where?")}
    assert len(losses) == 2


def test_a_folder_of_a_language_model_given_as_pretrained_is_the_same_model(folders: Folders) -> None:
    needs = replace(NEEDS, parts={"question": PartNeed("text")})
    as_it_is = catalog.find("family", "generative", {"pretrained": str(folders["gpt2"])}).build(needs, Weights())
    composed = built(folders, needs, towers={})
    assert torch.equal(as_it_is(batched(as_it_is, ROWS)).logits["caption"], composed(batched(composed, ROWS)).logits["caption"])


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


# -------------------------------------------------------------------------------------------------------- saved and made


def test_saved_and_opened_gives_the_same_bits(folders: Folders, tmp_path: Path) -> None:
    family = built(folders, connector={"name": "mlp", "tokens": 3})
    family.save(tmp_path)
    again = built(folders, weights=Weights("artifact", tmp_path), connector={"name": "mlp", "tokens": 3})
    assert torch.equal(again(batched(again, ROWS)).logits["caption"], family(batched(family, ROWS)).logits["caption"])
    assert said(again, ROWS) == said(family, ROWS)


def test_the_saved_language_model_loads_with_plain_transformers(folders: Folders, tmp_path: Path) -> None:
    text_model(folders, "llama").save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "towers" / "lm")
    assert not (tmp_path / "joint.safetensors").exists()
    assert torch.equal(model.lm_head.weight, AutoModelForCausalLM.from_pretrained(folders["llama"]).lm_head.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "towers" / "lm")("a")["input_ids"] == tokenizer()("a")["input_ids"]


def test_the_connector_is_drawn_from_the_seed_alone(folders: Folders) -> None:
    torch.default_generator.manual_seed(5)
    first = built(folders)
    torch.default_generator.manual_seed(6)
    again, other = built(folders), built(folders, weights=Weights(seed=1))
    weight = first.connector["image"].projection.weight
    assert torch.equal(weight, again.connector["image"].projection.weight)
    assert not torch.equal(weight, other.connector["image"].projection.weight)


def test_the_anatomy_has_the_towers_the_language_model_and_the_connector(folders: Folders) -> None:
    found = anatomy.find(built(folders))
    assert [tower.name for tower in found.towers] == ["image", "lm"]
    assert found.left == ("connector",)
    assert "connector.image.projection.weight" in found.parameters
    assert len(found.tower("lm").blocks) == 2


def test_on_the_meta_device_it_has_the_same_parameters(folders: Folders) -> None:
    shapes = anatomy.find(built(folders, weights=Weights("meta")))
    assert shapes.sizes == anatomy.find(built(folders)).sizes


def test_a_preparer_that_was_pickled_prepares_the_same(folders: Folders) -> None:
    family = built(folders)
    again = pickle.loads(pickle.dumps(family.preparer))  # noqa: S301
    made, expected = again.collate([again.prepare(sample, Forgetful()) for sample in ROWS]), batched(family, ROWS)
    assert torch.equal(made.inputs["lm"]["input_ids"], expected.inputs["lm"]["input_ids"])
    assert again.describe() == family.preparer.describe()


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


# --------------------------------------------------------------------------------------------------------------- pooling


def test_pooling_is_adaptive_average_pooling() -> None:
    tokens = torch.randn(2, 11, 5, generator=torch.Generator().manual_seed(0))
    pooled, mask = pool_tokens(tokens, torch.ones(2, 11, dtype=torch.bool), 4)
    torch.testing.assert_close(pooled, functional.adaptive_avg_pool1d(tokens.transpose(1, 2), 4).transpose(1, 2))
    assert mask.all()


def test_padding_changes_nothing_in_pooling() -> None:
    tokens = torch.randn(1, 7, 5, generator=torch.Generator().manual_seed(0))
    padded = functional.pad(tokens, (0, 0, 0, 4), value=9.0)
    mask = torch.arange(11)[None] < 7
    expected, _ = pool_tokens(tokens, torch.ones(1, 7, dtype=torch.bool), 3)
    torch.testing.assert_close(pool_tokens(padded, mask, 3)[0], expected)


def test_a_row_with_no_tokens_stays_masked() -> None:
    assert not pool_tokens(torch.ones(1, 4, 2), torch.zeros(1, 4, dtype=torch.bool), 3)[1].any()


def test_a_connector_gives_as_many_tokens_as_it_is_asked_for(folders: Folders) -> None:
    family = built(folders, connector={"name": "linear", "tokens": 2})
    read = family.encode(batched(family, [row(0)])).parts["image"]
    assert family.connector["image"](read["tokens"], read["mask"])[0].shape == (1, 2, 32)
