"""A model store of TorchServe, as a program: `python model_store.py FOLDER` writes two archives. Needs PyTorch.

They are zipped as torch-model-archiver zips them: files side by side, and MAR-INF/MANIFEST.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

MODEL_PY = """import torch
from torch import nn


class DigitsNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, image):
        return self.linear(torch.flatten(image, 1))
"""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def trained() -> torch.nn.Module:
    """The least squares of the digits that come with scikit-learn."""
    space: dict[str, type[torch.nn.Module]] = {}
    exec(MODEL_PY, space)  # the archive's own code
    images, labels = load_digits(return_X_y=True)
    rows = np.hstack([images, np.ones((len(images), 1))])
    weights = np.linalg.solve(rows.T @ rows + np.eye(65), rows.T @ np.eye(10)[labels])
    net = space["DigitsNet"]()
    with torch.no_grad():
        net.linear.weight.copy_(torch.from_numpy(weights[:64].T))
        net.linear.bias.copy_(torch.from_numpy(weights[64]))
    return net.eval()


def archive(path: Path, files: dict[str, Path | str], **model: str) -> None:
    said = {
        "createdOn": "20/11/2026 10:00:00",
        "runtime": "python",
        "model": {"modelName": path.stem, "handler": "image_classifier", "modelVersion": "1.0", **model},
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content.read_bytes() if isinstance(content, Path) else content)
        made.writestr("MAR-INF/MANIFEST.json", json.dumps(said, indent=2))


def main(store: Path) -> None:
    store.mkdir(parents=True)
    names = {"index_to_name.json": json.dumps(dict(enumerate(NAMES)))}
    net = trained()
    with tempfile.TemporaryDirectory() as folder:
        script, weights = Path(folder) / "script.pt", Path(folder) / "weights.pt"
        torch.jit.save(torch.jit.trace(net, torch.zeros(2, 1, 8, 8)), script)
        torch.save(net.state_dict(), weights)
        archive(store / "digits.mar", {"digits.pt": script, **names}, serializedFile="digits.pt")
        eager = {"digits.pt": weights, "model.py": MODEL_PY, **names}
        archive(store / "digits_eager.mar", eager, serializedFile="digits.pt", modelFile="model.py")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
