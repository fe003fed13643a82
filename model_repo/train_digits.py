"""Train the two versions of `digits`, measure both on the same held-out images, and export them to ONNX.

    python model_repo/train_digits.py [--into model_repo/digits]

Needs PyTorch, scikit-learn, onnx, onnxscript and onnxruntime; serving needs none of the first four. Takes under a
minute on one core and prints one JSON object with the accuracies.

The data are scikit-learn's 1,797 handwritten digits (`load_digits`: 8×8 pixels, values 0..16). A quarter of them,
450 images, stratified by digit with a fixed seed, is held out: neither version sees it in training, no epoch is
picked by it (the last one is exported), and the accuracies are those of the exported files run by ONNX Runtime.

Version 1 is a small network without augmentation; version 2 is wider, normalised, and trained on shifted and noisy
copies with a decaying learning rate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 20
HELD_OUT = 450
LARGEST_PIXEL = 16.0
CHECKED_BATCHES = (1, 2, 7, 64, 450)


class Classifier(nn.Module):
    """`image` [batch, 1, 8, 8] raw pixels 0..16 → `probabilities` [batch, 10] and the most likely `digit` [batch]."""

    def __init__(self, features: nn.Sequential, width: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(width, 10)

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        # Scaling belongs to the graph: a client then sends what the data set holds and cannot get it wrong.
        return self.head(self.features(image / LARGEST_PIXEL))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        probabilities = torch.softmax(self.logits(image), dim=1)
        return probabilities, torch.argmax(probabilities, dim=1)


def small() -> Classifier:
    features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    return Classifier(features, 8 * 4 * 4)


def wide() -> Classifier:
    features = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
    )
    return Classifier(features, 64 * 2 * 2)


def augmented(images: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Each image moved by up to one pixel in each direction, with a little noise."""
    rows = torch.arange(len(images))
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)  # [batch, 1, 3, 3, 8, 8]: every shift of every image
    down, right = torch.randint(0, 3, (2, len(images)), generator=source)
    noise = 0.5 * torch.randn(images.shape, generator=source)
    return (windows[rows, :, down, right] + noise).clamp(0, LARGEST_PIXEL)


def train(
    model: Classifier, images: torch.Tensor, digits: torch.Tensor, *, epochs: int, rate: float, augment: bool
) -> None:
    source = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=source).split(64):
            batch = augmented(images[rows], source) if augment else images[rows]
            loss = nn.functional.cross_entropy(model.logits(batch), digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    model.eval()


def export(model: Classifier, path: Path, examples: torch.Tensor) -> None:
    """Write `model` as one ONNX file with a dynamic axis "batch", then prove the file against PyTorch."""
    # The exporter may keep a temporary file beside its output; only the finished model may appear in the repository.
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (examples[:2],),
            draft,
            dynamo=True,
            opset_version=20,
            input_names=["image"],
            output_names=["probabilities", "digit"],
            dynamic_shapes={"image": {0: "batch"}},
            external_data=False,
            verbose=False,
        )
        proto = onnx.load(draft)
    strip_traces(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in CHECKED_BATCHES:
        batch = examples[:rows]
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in model(batch)]
        probabilities, digit = session.run(["probabilities", "digit"], {"image": batch.numpy()})
        np.testing.assert_allclose(probabilities, expected[0], rtol=0, atol=2e-5)
        np.testing.assert_array_equal(digit, expected[1])


def strip_traces(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold paths of the machine that trained and outweigh the small model."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    for graph in (proto.graph, *proto.functions):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        value.doc_string = ""
        del value.metadata_props[:]
    for weight in proto.graph.initializer:
        weight.doc_string = ""
        del weight.metadata_props[:]


def accuracy(path: Path, images: np.ndarray, digits: np.ndarray) -> float:
    """Share of `images` that the exported file gets right."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answers,) = session.run(["digit"], {"image": images})
    return float((answers == digits).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the digits model.")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "digits", help="the model's folder")
    folder: Path = parser.parse_args().into

    torch.set_num_threads(1)  # the order of additions, hence the result, depends on the number of threads
    torch.use_deterministic_algorithms(True)
    data = load_digits()
    images = data.images.astype(np.float32)[:, None]
    train_images, test_images, train_digits, test_digits = train_test_split(
        images, data.target, test_size=HELD_OUT, random_state=SEED, stratify=data.target
    )
    report: dict[str, object] = {"train_images": len(train_images), "held_out_images": len(test_images)}
    recipes = {
        1: (small, {"epochs": 20, "rate": 5e-3, "augment": False}),
        2: (wide, {"epochs": 60, "rate": 3e-3, "augment": True}),
    }
    for version, (build, recipe) in recipes.items():
        torch.manual_seed(SEED)
        model = build()
        train(model, torch.from_numpy(train_images), torch.from_numpy(train_digits), **recipe)
        path = folder / str(version) / "model.onnx"
        export(model, path, torch.from_numpy(test_images))
        report[f"version_{version}"] = {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "bytes": path.stat().st_size,
            "held_out_accuracy": round(accuracy(path, test_images, test_digits), 4),
            "train_accuracy": round(accuracy(path, train_images, train_digits), 4),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
