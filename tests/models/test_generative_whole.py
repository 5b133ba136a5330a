"""A folder that reads pictures and text through its own processor, fine-tuned as it is: a SmolVLM made small."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn import functional
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerFast

from multitune.core import catalog
from multitune.core.errors import ModelError
from multitune.core.protocols import AnswerNeed, Batch, Needs, Part, PartNeed, Sample, Text
from multitune.core.randomness import generator
from multitune.data.decode import BadPart
from multitune.models import anatomy
from multitune.models.load import Weights
from multitune.models.predictor import Forgetful, Predictor

TILES = [f"<row_{line}_col_{column}>" for line in (1, 2, 3, 4) for column in (1, 2, 3, 4)]
SPECIAL = ["<|im_start|>", "<end_of_utterance>", "<pad>", "<image>", "<fake_token_around_image>", "<global-img>", "<video>", *TILES]
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}{% else %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
LANGUAGE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": len(SPECIAL) + 256,
    "max_position_embeddings": 400,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
NEEDS = Needs({"image": PartNeed("image"), "question": PartNeed("text")}, {"caption": AnswerNeed("text")})
IGNORED = -100


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SmolVLM."""
    return write_smolvlm(tmp_path_factory.mktemp("smolvlm"))


def write_smolvlm(place: Path) -> Path:
    """A folder whose pictures become one tile of four tokens, or several where they are larger."""
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *sorted(ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[2], "additional_special_tokens": SPECIAL[3:]}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=1000, **names).save_pretrained(place)
    config = AutoConfig.for_model(
        "smolvlm", vision_config=VISION, text_config=LANGUAGE, scale_factor=2, image_token_id=SPECIAL.index("<image>"), pad_token_id=2
    )
    torch.default_generator.manual_seed(1)
    model = AutoModelForImageTextToText.from_config(config)
    for parameter in model.parameters():
        parameter.data.mul_(4)
    model.save_pretrained(place)
    pictures = {"image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": True, "do_pad": True, "resample": 2}
    pictures |= {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    (place / "preprocessor_config.json").write_text(json.dumps(pictures))
    (place / "video_preprocessor_config.json").write_text('{"video_processor_type": "SmolVLMVideoProcessor"}')
    (place / "processor_config.json").write_text('{"processor_class": "SmolVLMProcessor", "image_seq_len": 4}')
    (place / "chat_template.jinja").write_text(TEMPLATE)
    return place


@pytest.fixture(scope="module")
def family(folder: Path) -> Any:
    return built(folder)


def built(folder: Path | str, needs: Needs = NEEDS, weights: Weights | None = None, **options: Any) -> Any:
    return catalog.find("family", "generative", {"pretrained": str(folder), **options}).build(needs, weights or Weights())


def row(place: int, caption: str = "a red star", question: str = "what is it?", size: tuple[int, int] | None = (20, 30)) -> Sample:
    parts = {"question": Part("text", question), "caption": Part("text", caption)}
    if size is not None:
        parts["image"] = Part("image", generator("picture", place).integers(0, 255, (*size, 3), dtype=np.uint8))
    return Sample(f"row-{place}", parts)


ROWS = [row(0), row(1, "a blue ring", "which?", (60, 30)), row(2, "no", "and this? " * 3), row(3, "a moon", size=None)]


def batched(family: Any, samples: Sequence[Sample]) -> Batch:
    return family.preparer.collate([family.preparer.prepare(sample, Forgetful()) for sample in samples])


def loss(family: Any, batch: Batch) -> torch.Tensor:
    logits = family(batch).logits["caption"]
    return functional.cross_entropy(logits.flatten(0, 1), batch.answers["caption"].flatten(), ignore_index=IGNORED, reduction="sum")


def said(family: Any, samples: Sequence[Sample], **generate: Any) -> list[Text]:
    predictions = Predictor(family, group_rows=4, generate={"max_new_tokens": 6} | generate).predict(samples)
    return [prediction.answers["caption"] for prediction in predictions]


def by_hand(processor: Any, sample: Sample, *, answered: bool) -> Any:
    """What plain Transformers makes of a row."""
    content = [{"type": "image"}, {"type": "text", "text": sample.parts["question"].value}]
    messages = [{"role": "user", "content": content}]
    if answered:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": sample.parts["caption"].value}]})
    text = processor.apply_chat_template(messages, add_generation_prompt=not answered, tokenize=False)
    pictures = [[Image.fromarray(sample.parts["image"].value)]]
    return processor(text=[text], images=pictures, add_special_tokens=False, return_tensors="pt")


def test_the_loss_of_a_batch_is_the_sum_of_its_rows_alone(family: Any) -> None:
    alone = [loss(family, batched(family, [sample])).item() for sample in ROWS]
    assert loss(family, batched(family, ROWS)).item() == pytest.approx(sum(alone), rel=1e-6)


@pytest.mark.parametrize("place", [0, 1])
def test_the_loss_is_that_of_plain_transformers_on_the_answer(family: Any, folder: Path, place: int) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    inputs, prompt = (by_hand(processor, ROWS[place], answered=answered) for answered in (True, False))
    labels = inputs["input_ids"].clone()
    labels[:, : prompt["input_ids"].shape[1]] = IGNORED
    expected = AutoModelForImageTextToText.from_pretrained(folder)(**inputs, labels=labels).loss * (labels != IGNORED).sum()
    assert loss(family, batched(family, [ROWS[place]])).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("place", [0, 1])
def test_greedy_writes_what_plain_transformers_generates(family: Any, folder: Path, place: int) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    inputs = by_hand(processor, ROWS[place], answered=False)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False, pad_token_id=2)[0, inputs["input_ids"].shape[1] :]
    assert said(family, [ROWS[place]])[0].value == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_what_is_written_alone_is_what_is_written_among_neighbours(family: Any) -> None:
    assert [said(family, [sample])[0] for sample in ROWS] == said(family, ROWS)


def test_a_sample_does_not_depend_on_its_neighbours(family: Any) -> None:
    drawn = {"temperature": 1.0, "top_p": 0.9, "seed": 3}
    assert [said(family, [sample], **drawn)[0] for sample in ROWS] == said(family, ROWS, **drawn)


def test_the_answer_is_not_looked_at_while_writing(family: Any) -> None:
    without = [replace(sample, parts={name: part for name, part in sample.parts.items() if name != "caption"}) for sample in ROWS]
    assert said(family, without) == said(family, ROWS)


def test_a_batch_without_any_picture_is_read_too(family: Any) -> None:
    assert torch.isfinite(loss(family, batched(family, [ROWS[3]])))


def test_one_step_moves_every_tower_and_the_saved_folder_loads_with_plain_transformers(folder: Path, tmp_path: Path) -> None:
    family = built(folder)
    before = {name: parameter.detach().clone() for name, parameter in family.named_parameters()}
    loss(family, batched(family, ROWS)).backward()
    torch.optim.SGD(family.parameters(), lr=1e-2).step()
    assert [name for name, parameter in family.named_parameters() if torch.equal(parameter, before[name])] == []
    family.save(tmp_path)
    plain, processor = (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "model"),
        AutoProcessor.from_pretrained(tmp_path / "processor"),
    )
    inputs = by_hand(processor, ROWS[1], answered=True)
    assert torch.equal(plain(**inputs).logits, family.model(**inputs).logits)


def test_saved_and_opened_gives_the_same_bits(family: Any, tmp_path: Path) -> None:
    family.save(tmp_path)
    again = built("elsewhere/gone", weights=Weights("artifact", tmp_path))
    assert torch.equal(again(batched(again, ROWS)).logits["caption"], family(batched(family, ROWS)).logits["caption"])
    assert said(again, ROWS) == said(family, ROWS)
    assert again.preparer.describe() == family.preparer.describe()


def test_the_anatomy_names_the_towers_inside(family: Any) -> None:
    found = anatomy.find(family)
    assert [tower.name for tower in found.towers] == ["image", "lm"]
    assert found.left == ("connector", "lm_head")
    assert [len(tower.blocks) for tower in found.towers] == [2, 2]


def test_on_the_meta_device_it_has_the_same_parameters(family: Any, folder: Path) -> None:
    assert anatomy.find(built(folder, weights=Weights("meta"))).sizes == anatomy.find(family).sizes


def test_a_preparer_that_was_pickled_prepares_the_same(family: Any) -> None:
    again = pickle.loads(pickle.dumps(family.preparer))  # noqa: S301
    made = again.collate([again.prepare(sample, Forgetful()) for sample in ROWS]).inputs["joined"]
    for name, tensor in batched(family, ROWS).inputs["joined"].items():
        assert torch.equal(made[name], tensor), name


@pytest.mark.parametrize(
    "text", ["<image>", "<image><image>", "<row_1_col_1><image", "a <fake_token_around_image> b", "<<image>image>", "</s><pad>"]
)
def test_special_tokens_that_users_spell_are_only_words(family: Any, text: str) -> None:
    image = SPECIAL.index("<image>")
    spelled, plain = (family.preparer.prepare(row(0, words, words), Forgetful()) for words in (text, "word"))
    assert (spelled["inputs"]["input_ids"] == image).sum() == (plain["inputs"]["input_ids"] == image).sum()
    assert (spelled["inputs"]["input_ids"] < len(SPECIAL)).sum() == (plain["inputs"]["input_ids"] < len(SPECIAL)).sum()
    assert (spelled["answer"] < len(SPECIAL)).sum() == 1
    assert torch.isfinite(loss(family, batched(family, [row(0, text, text)])))


def test_a_row_that_is_too_long_is_a_bad_part_and_no_picture_token_is_cut(family: Any) -> None:
    sample = row(0, "word " * 100)
    with pytest.raises(BadPart, match="the model takes 400") as caught:
        family.preparer.prepare(sample, Forgetful())
    assert caught.value.part == "caption"


def test_a_caption_longer_than_the_recipe_allows_is_cut_and_said(folder: Path) -> None:
    family = built(folder, replace(NEEDS, answers={"caption": AnswerNeed("text", options={"max_length": 5})}))
    prepared = family.preparer.prepare(row(0, "a red star"), Forgetful())
    assert prepared["truncated"] == {"caption": 5}
    assert family.preparer.text(prepared["answer"].tolist()) == "a red"


def test_writing_stops_at_the_token_that_ends_a_turn(family: Any) -> None:
    assert SPECIAL.index("<end_of_utterance>") in family.preparer.stops()


def test_without_a_chat_template_the_picture_stands_before_the_prompt(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    (plain / "chat_template.jinja").unlink()
    family = built(plain)
    ids = family.preparer.prepare(row(0), Forgetful())["inputs"]["input_ids"][0].tolist()
    assert family.preparer.processor.tokenizer.decode(ids).endswith("<fake_token_around_image>what is it?\n")
    alone = [loss(family, batched(family, [sample])).item() for sample in ROWS]
    assert loss(family, batched(family, ROWS)).item() == pytest.approx(sum(alone), rel=1e-6)


def test_a_template_whose_prompt_changes_with_the_answer_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "chat_template.jinja").write_text("{{ messages | length }}" + TEMPLATE)
    with pytest.raises(ModelError, match="does not stay the same when the answer follows"):
        built(other)


def test_a_sound_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"reads pictures and text.*this part is audio"):
        built(folder, replace(NEEDS, parts={"sound": PartNeed("audio")}))
