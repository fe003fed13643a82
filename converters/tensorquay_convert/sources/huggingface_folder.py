"""Read a Hugging Face model folder as data: its configuration, which files it is made of, what must not be trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay_convert.errors import BadSource

_JSON_BYTES = 64 << 20
_BESIDE = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "preprocessor_config.json",
)  # fmt: skip
"""Files a client needs to make the model's inputs; they go beside the model."""

_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}


@dataclass(frozen=True, slots=True)
class Sentence:
    """How token vectors become one vector per text. `pooling`: modes whose results are joined."""

    pooling: tuple[str, ...]
    normalize: bool
    max_length: int | None


@dataclass(frozen=True, slots=True)
class Folder:
    """A model folder that was looked through.

    Args: model: where config.json and weights are (sentence-transformers may keep them in a folder inside).
    """

    root: Path
    model: Path
    config: Mapping[str, Any]
    weights: tuple[Path, ...]
    sentence: Sentence | None

    @property
    def architecture(self) -> str:
        """The class the weights were saved from, "" when the configuration does not say."""
        named = self.config.get("architectures")
        return str(named[0]) if isinstance(named, list) and named else ""

    @property
    def beside(self) -> dict[str, Path]:
        """Files that go beside the model, by name."""
        found = {}
        for folder in (self.model, self.root):
            for name in _BESIDE:
                if (folder / name).is_file():
                    found[name] = _inside(folder / name, self.root)
        return found

    def integer(self, *names: str) -> int | None:
        """The first of these settings that is a positive integer."""
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        return None


def look_through(root: Path) -> Folder:
    """Find out what is in the folder.

    Raises: BadSource for what is missing, damaged, or would need code from the folder or a download.
    """
    model, sentence = _sentence(root)
    config = _object(model / "config.json", root)
    if _names_code(config):
        raise BadSource(
            f"'{root.name}' asks for code of its own (auto_map in config.json), which is not run",
            remedy="write a factory that makes the model, and import that: path/to/model.py:factory",
        )
    if (model / "adapter_config.json").exists():
        raise BadSource(
            f"'{root.name}' is an adapter without its base model", remedy="merge it: peft's merge_and_unload, then save"
        )
    if config.get("quantization_config"):
        raise BadSource(
            f"'{root.name}' holds quantized weights, which only their own library reads",
            remedy="import the original model, and quantize the result",
        )
    return Folder(root, model, config, _weights(model, root), sentence)


def _weights(model: Path, root: Path) -> tuple[Path, ...]:
    """The safetensors files, all there."""
    index = model / "model.safetensors.index.json"
    if index.is_file():
        shards = _object(index, root).get("weight_map")
        names = sorted({str(each) for each in shards.values()}) if isinstance(shards, Mapping) else []
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise BadSource(f"the index of '{root.name}' names '{name}', expected a .safetensors file beside it")
        missing = [name for name in names if not (model / name).is_file()]
        if missing or not names:
            raise BadSource(
                f"'{root.name}' lacks {len(missing)} of {len(names)} weight files, '{missing[0]}' first"
                if missing
                else f"the index of '{root.name}' names no weight files",
                remedy="download the folder again, whole",
            )
        return tuple(_inside(model / name, root) for name in names)
    if (model / "model.safetensors").is_file():
        return (_inside(model / "model.safetensors", root),)
    pickled = sorted(each.name for each in model.glob("*.bin"))
    raise BadSource(
        f"'{root.name}' has no weights as safetensors"
        + (f", only the pickle '{pickled[0]}', which could run code" if pickled else ""),
        remedy="load it where you trust it and save it again: model.save_pretrained(folder)",
    )


def _sentence(root: Path) -> tuple[Path, Sentence | None]:
    """What modules.json of sentence-transformers says, and where the encoder is."""
    path = root / "modules.json"
    if not path.is_file():
        return root, None
    modules = _json(path, root)
    if not isinstance(modules, list) or not all(isinstance(each, Mapping) for each in modules):
        raise BadSource(f"modules.json of '{root.name}' is no list of modules")
    folders = [_part(root, str(each.get("path", ""))) for each in modules]
    kinds = [str(each.get("type", "")).rpartition(".")[2] for each in modules]
    if kinds[:1] != ["Transformer"] or kinds[1:] not in (["Pooling"], ["Pooling", "Normalize"]):
        raise BadSource(
            f"'{root.name}' joins the modules {', '.join(kinds)}, expected Transformer, Pooling and maybe Normalize",
            remedy="write a factory that makes the whole model, and import that: path/to/model.py:factory",
        )
    settings = _object(folders[1] / "config.json", root)
    modes = settings.get("pooling_mode")
    pooling = tuple(name for key, name in _POOLING.items() if settings.get(key))
    if isinstance(modes, str) and not pooling:
        pooling = (modes,)
    unknown = [
        key for key, value in settings.items() if key.startswith("pooling_mode_") and value and key not in _POOLING
    ]
    if unknown or not pooling or not set(pooling) <= set(_POOLING.values()):
        raise BadSource(
            f"'{root.name}' pools by {', '.join(unknown or pooling) or 'nothing'}, "
            "expected cls, mean, max or mean_sqrt_len",
            remedy="write a factory that makes the whole model, and import that: path/to/model.py:factory",
        )
    limits = root / "sentence_bert_config.json"
    length = _object(limits, root).get("max_seq_length") if limits.is_file() else None
    return folders[0], Sentence(pooling, "Normalize" in kinds, length if isinstance(length, int) else None)


def _names_code(config: Any) -> bool:
    """Whether auto_map or custom code is asked for anywhere in the configuration."""
    if isinstance(config, Mapping):
        return bool(config.get("auto_map")) or any(_names_code(each) for each in config.values())
    return isinstance(config, list) and any(_names_code(each) for each in config)


def _part(root: Path, name: str) -> Path:
    path = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BadSource(f"modules.json of '{root.name}' leads out of the folder: '{name}'")
    return path


def _inside(path: Path, root: Path) -> Path:
    """The file, if it really is in the folder; a hub's cache links into "blobs" beside its "snapshots".

    Raises: BadSource: what a link leads to would be published.
    """
    target, home = path.resolve(), root.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
        raise BadSource(f"'{path.name}' in '{root.name}' is a link that leads out of the folder")
    return path


def _object(path: Path, root: Path) -> Mapping[str, Any]:
    value = _json(path, root)
    if not isinstance(value, Mapping):
        raise BadSource(f"'{path.name}' of '{root.name}' is no JSON object")
    return value


def _json(path: Path, root: Path) -> Any:
    try:
        if _inside(path, root).stat().st_size > _JSON_BYTES:
            raise BadSource(f"'{path.name}' of '{root.name}' is larger than {_JSON_BYTES >> 20} MiB")
        return json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise BadSource(f"'{root.name}' has no {path.relative_to(root)}", remedy="give a whole model folder") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise BadSource(f"'{path.name}' of '{root.name}' is no JSON: {exc}") from exc
