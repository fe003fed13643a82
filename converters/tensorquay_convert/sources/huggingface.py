"""Open Hugging Face model folders (config.json and safetensors): the task is found from the architecture.

Only classes of the installed `transformers` are used; nothing in the folder is run, nothing is downloaded.
Attention is exported as plain products ("eager"): on MiniLM that gave 225 nodes against 297 of scaled-dot-product
attention, whose guards against rows without any content cost time, at the same accuracy.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from tensorquay_convert.api import Say
from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources.huggingface_folder import Folder, Sentence, look_through
from tensorquay_convert.sources.torch_examples import example_inputs
from tensorquay_convert.sources.torch_failures import own_words
from tensorquay_convert.sources.torch_module import ModuleSource, Opened, open_callable
from tensorquay_convert.tensors import BATCH, Axis, AxisRange, Meaning, Values

SEQUENCE = "sequence"
_LONGEST_TRIED = 2048
"""Longest sequence a limit is checked at; beyond, it is told and not declared: checking it takes gigabytes."""
_OWN_LABEL = re.compile(r"LABEL_\d+")


@dataclass(frozen=True, slots=True)
class Task:
    """What an architecture is for. `outputs`: those of the model's that are served. `labelled`: logits have names."""

    shown: str
    outputs: tuple[str, ...]
    labelled: bool = False


_TASKS: Mapping[str, Task] = {
    "ForSequenceClassification": Task("text classification", ("logits",), labelled=True),
    "ForTokenClassification": Task("token classification", ("logits",), labelled=True),
    "ForQuestionAnswering": Task("question answering", ("start_logits", "end_logits")),
    "ForMaskedLM": Task("masked language model", ("logits",)),
    "ForImageClassification": Task("image classification", ("logits",), labelled=True),
    "ForCausalLM": Task("causal language model", ("logits",)),
    "LMHeadModel": Task("causal language model", ("logits",)),
    "Model": Task("features", ("last_hidden_state", "pooler_output")),
}


class TextModel(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """A text model that takes what a tokenizer gives, by position or name, and gives its task's outputs by name."""

    def __init__(self, model: Any, outputs: tuple[str, ...], sentence: Sentence | None) -> None:
        super().__init__()
        self.model = model
        self._outputs = outputs
        self._sentence = sentence

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The outputs; `sentence_embedding` too where the folder says how texts become one vector."""
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        result = self.model(input_ids=input_ids, **{name: each for name, each in given.items() if each is not None})
        found = {name: result[name] for name in self._outputs if name in result}
        if self._sentence is not None:
            assert attention_mask is not None
            found["sentence_embedding"] = pool(result["last_hidden_state"], attention_mask, self._sentence)
        return found


class ImageModel(torch.nn.Module):  # type: ignore[misc]  # idem
    """An image model that gives its task's outputs by name."""

    def __init__(self, model: Any, outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._outputs = outputs

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs."""
        result = self.model(pixel_values=pixel_values)
        return {name: result[name] for name in self._outputs if name in result}


def pool(vectors: torch.Tensor, attention_mask: torch.Tensor, sentence: Sentence) -> torch.Tensor:
    """One vector per text, shape (batch, modes · hidden), from vectors (batch, sequence, hidden).

    The rules are those of sentence-transformers.
    """
    mask = attention_mask.unsqueeze(-1).to(vectors.dtype)
    count = mask.sum(1).clamp(min=1e-9)
    by_mode = {
        "cls": lambda: vectors[:, 0],
        "mean": lambda: (vectors * mask).sum(1) / count,
        "mean_sqrt_len": lambda: (vectors * mask).sum(1) / count.sqrt(),
        "max": lambda: vectors.masked_fill(mask == 0, -1e9).max(1).values,
    }
    pooled = torch.cat([by_mode[mode]() for mode in sentence.pooling], dim=-1)
    return torch.nn.functional.normalize(pooled, dim=-1) if sentence.normalize else pooled


class HuggingFaceConverter:
    """Opens model folders."""

    kinds: tuple[SourceKind, ...] = (SourceKind.HUGGING_FACE,)
    extra = "torch"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> ModuleSource:
        folder = look_through(Path(job.source))
        architecture, task = _task(folder)
        say(f"loading {architecture} ({task.shown})")
        model, notes = _load(folder, architecture)
        main = getattr(model, "main_input_name", "input_ids")
        if main == "input_ids":
            module, example, shapes, values, axes, more = _text(model, folder, task, job)
        elif main == "pixel_values":
            module, example, shapes, values, axes, more = _image(model, folder, task)
        else:
            raise Unsupported(
                f"'{folder.root.name}' takes '{main}', expected a model of text or images",
                remedy="write a factory that makes it, with example inputs: path/to/model.py:factory",
            )
        given = example_inputs(job, tuple(example))
        opened = Opened(
            kind,
            f"a Hugging Face model, {architecture} ({task.shown})",
            (folder.model / "config.json", *folder.weights),
            side_files=folder.beside,
            labels=_labels(model, task),
            notes=(*notes, *more),
            versions={
                "transformers": transformers.__version__,
                "safetensors": importlib.metadata.version("safetensors"),
            },
            known_values=values,
            known_axes=axes,
        )
        return open_callable(module, example if given is None else given, job, opened, shapes)


def _task(folder: Folder) -> tuple[str, Task]:
    """The class and what it is for. Raises: Unsupported for tasks that are not one call of a model."""
    name = folder.architecture or "AutoModel"
    if folder.config.get("is_encoder_decoder"):
        raise Unsupported(
            f"'{folder.root.name}' is an encoder and a decoder ({name}), which generate step by step",
            remedy="write a factory for the part you want to serve: path/to/model.py:factory",
        )
    for ending, task in _TASKS.items():
        if name.endswith(ending):
            return name, task
    raise Unsupported(
        f"the architecture '{name}' is for a task this import does not know",
        remedy="write a factory that makes the model, with example inputs: path/to/model.py:factory",
        facts={"architecture": name},
    )


def _load(folder: Folder, architecture: str) -> tuple[Any, tuple[str, ...]]:
    """The model in float32, with every weight from the folder.

    Raises: BadSource when a weight is missing or has another shape; Unsupported for an unknown architecture.
    """
    found = getattr(transformers, architecture, None)
    known = isinstance(found, type) and (issubclass(found, transformers.PreTrainedModel) or architecture == "AutoModel")
    if not known or found is None:
        raise Unsupported(
            f"transformers {transformers.__version__} has no model '{architecture}'",
            remedy="install the version the model was made for, or name an interpreter that has it with --python",
        )
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, info = found.from_pretrained(
            folder.model,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as exc:
        raise BadSource(
            f"'{folder.root.name}' cannot be loaded: {own_words(exc)}",
            remedy="download or save the folder again, whole",
        ) from exc
    missing, other = sorted(info["missing_keys"]), sorted(str(each) for each in info["mismatched_keys"])
    notes: tuple[str, ...] = ()
    if missing and all(name.startswith("pooler.") for name in missing):
        model.pooler = None
        notes = ("the folder has no weights of the pooler, so there is no output 'pooler_output'",)
        missing = []
    if missing or other:
        what = f"lacks weights of {architecture}" if missing else f"has weights of other shapes than {architecture}"
        raise BadSource(
            f"'{folder.root.name}' {what}: {', '.join((missing or other)[:5])}",
            remedy="save the whole model: model.save_pretrained(folder)",
        )
    stored = folder.config.get("dtype", folder.config.get("torch_dtype"))
    if stored not in {None, "float32"}:
        notes = (*notes, f"the weights are stored as {stored}; they are imported as float32")
    model.config.use_cache = False
    model.config.return_dict = True
    return model.eval(), notes


_Prepared = tuple[
    torch.nn.Module,
    dict[str, torch.Tensor],
    dict[str, tuple[Axis, ...]],
    dict[str, Values],
    dict[str, AxisRange],
    tuple[str, ...],
]
"""A module, an example by name, shapes, values and axes' bounds, notes."""


def _text(model: Any, folder: Folder, task: Task, job: ImportJob) -> _Prepared:
    """A text model: inputs as the tokenizer gives them, sequence length dynamic up to the model's limit."""
    takes = inspect.signature(model.forward).parameters
    vocabulary = model.get_input_embeddings().weight.shape[0]
    kinds = folder.integer("type_vocab_size") or 0
    axis = next((each.name for each in job.dynamic if each.tensor == "input_ids" and each.axis == 1), SEQUENCE)
    values = {"input_ids": Values(Meaning.TOKEN_IDS, 0, vocabulary - 1)}
    example = {"input_ids": torch.arange(2, 18).reshape(2, 8) % vocabulary}
    if "attention_mask" in takes or folder.sentence is not None:
        values["attention_mask"] = Values(Meaning.MASK, 0, 1)
        example["attention_mask"] = torch.ones(2, 8, dtype=torch.int64)
        example["attention_mask"][1, 6:] = 0
    if "token_type_ids" in takes and kinds > 1:
        values["token_type_ids"] = Values(Meaning.SEGMENT_IDS, 0, kinds - 1)
        example["token_type_ids"] = torch.zeros(2, 8, dtype=torch.int64)
    notes: tuple[str, ...] = ()
    if task.shown.startswith("causal"):
        notes = ("exported without a cache: each call computes the whole sequence, generating is up to the client",)
    module = TextModel(model, task.outputs, folder.sentence)
    limit = folder.integer("max_position_embeddings", "n_positions", "max_seq_len")
    axes = {axis: AxisRange(1, _longest(module, example, limit, folder.integer("pad_token_id") or 0))}
    if limit is not None and limit > _LONGEST_TRIED:
        notes = (*notes, f"the model's limit of {limit} tokens was not tried")
    if folder.sentence is not None and folder.sentence.max_length:
        notes = (*notes, f"it was made for texts of up to {folder.sentence.max_length} tokens")
    return module, example, dict.fromkeys(example, (BATCH, axis)), values, axes, notes


def _longest(module: TextModel, example: Mapping[str, torch.Tensor], limit: int | None, padding: int) -> int | None:
    """The longest sequence that runs. RoBERTa's kin lose the positions up to the padding's.

    Raises: BadSource when the model does not run on its example at all.
    """
    if limit is None or limit > _LONGEST_TRIED:
        return None
    lengths = dict.fromkeys((limit, limit - padding - 1, limit - 2))
    words = ""
    module.eval()
    for length in (each for each in lengths if each >= 1):
        repeats = -(-length // 8)
        try:
            with torch.inference_mode():
                # One id for all: RoBERTa gives padding, whose id may be among the example's, no position.
                longer = {name: each[:1].repeat(1, repeats)[:, :length] for name, each in example.items()}
                longer["input_ids"] = torch.full((1, length), 0 if padding else 1)
                module(**longer)
        except (RuntimeError, IndexError) as exc:
            words = own_words(exc)
        else:
            return length
    raise BadSource(f"the model does not run at its own limit of {limit} tokens: {words}")


def _image(model: Any, folder: Folder, task: Task) -> _Prepared:
    """An image model: pixels as its preprocessor gives them, at the size it was trained for."""
    channels = folder.integer("num_channels") or 3
    size = folder.config.get("image_size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (size if isinstance(size, int) else 224,) * 2
    example = {
        "pixel_values": torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    }
    note = "pixels are expected as preprocessor_config.json makes them: resized, scaled, normalised, channels first"
    shape: tuple[Axis, ...] = (BATCH, channels, height, width)
    notes = (note,) if "preprocessor_config.json" in folder.beside else ()
    return ImageModel(model, task.outputs), example, {"pixel_values": shape}, {"pixel_values": Values()}, {}, notes


def _labels(model: Any, task: Task) -> dict[str, tuple[str, ...]]:
    names = getattr(model.config, "id2label", None)
    if not task.labelled or not names:
        return {}
    ordered = tuple(str(names[place]) for place in sorted(names))
    return {} if all(_OWN_LABEL.fullmatch(each) for each in ordered) else {"logits": ordered}
