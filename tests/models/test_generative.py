"""The generative family, composed: its loss is the answer's alone, whatever stands beside a row; and it can be saved and opened."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from multitune.core import catalog
from multitune.core.protocols import PartNeed
from multitune.models import anatomy
from multitune.models.joining import pool_tokens
from multitune.models.load import Weights
from multitune.models.predictor import Forgetful
from tests.models.speaking import (
    IGNORED,
    NEEDS,
    ROWS,
    VOCABULARY,
    Folders,
    batched,
    built,
    loss,
    row,
    said,
    text_model,
    tokenizer,
    write_folders,
)


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
