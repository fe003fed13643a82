"""What the frameworks really write is told apart, without any of them; and the frame around real imports holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tensorquay_convert.detect import detect
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind

pytestmark = pytest.mark.frameworks

_MAKE = """
import pickle, warnings
warnings.simplefilter("ignore")
import joblib, keras, lightgbm, skops.io, tensorflow, torch, xgboost
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from safetensors.torch import save_file

module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(-1)).eval()
shapes = ({0: torch.export.Dim("batch")},)
torch.export.save(torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=shapes), "m.pt2")
torch.jit.script(module).save("m.pt")
torch.save(module.state_dict(), "weights.pth")
torch.save(module.state_dict(), "old.pth", _use_new_zipfile_serialization=False)
torch.save(module, "whole.pt")
save_file(module.state_dict(), "w.safetensors")
features, kinds = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(features, kinds)
skops.io.dump(model, "m.skops")
joblib.dump(model, "m.joblib")
joblib.dump(model, "packed.joblib", compress=3)
pickle.dump(model, open("m.pkl", "wb"))
trees = xgboost.XGBClassifier(n_estimators=3).fit(features, kinds)
trees.save_model("m.json")
trees.save_model("m.ubj")
lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(features, kinds).booster_.save_model("m.txt")
layers = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
layers.save("m.keras")
layers.save("m.h5")
layers.export("saved/1")
open("m.tflite", "wb").write(tensorflow.lite.TFLiteConverter.from_keras_model(layers).convert())
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
frozen = tensorflow.function(layers).get_concrete_function(tensorflow.TensorSpec((None, 4)))
open("m.pb", "wb").write(convert_variables_to_constants_v2(frozen).graph.as_graph_def().SerializeToString())
"""

KINDS = {
    "m.pt2": SourceKind.TORCH_EXPORT,
    "m.pt": SourceKind.TORCHSCRIPT,
    "m.skops": SourceKind.SKOPS,
    "m.json": SourceKind.XGBOOST,
    "m.ubj": SourceKind.XGBOOST,
    "m.txt": SourceKind.LIGHTGBM,
    "m.keras": SourceKind.KERAS,
    "m.h5": SourceKind.KERAS,
    "m.tflite": SourceKind.TFLITE,
    "m.pb": SourceKind.GRAPH_DEF,
    "saved": SourceKind.SAVED_MODEL,
    "saved/1": SourceKind.SAVED_MODEL,
    "saved/1/saved_model.pb": SourceKind.SAVED_MODEL,
}
REFUSED = {
    "weights.pth": "pickled PyTorch checkpoint",
    "old.pth": "before PyTorch 1.6",
    "whole.pt": "pickled PyTorch checkpoint",
    "w.safetensors": "a safetensors file",
    "m.joblib": "is a pickle",
    "packed.joblib": "is a pickle",
    "m.pkl": "is a pickle",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file or folder of every kind, written by the frameworks themselves, in a process of their own."""
    folder = tmp_path_factory.mktemp("files")
    subprocess.run([sys.executable, "-c", _MAKE], cwd=folder, check=True, timeout=110, capture_output=True)
    return folder


@pytest.mark.long
def test_every_kind_is_known(files: Path) -> None:
    assert {name: detect(ImportJob(source=str(files / name))).kind for name in KINDS} == KINDS
    for name, said in REFUSED.items():
        with pytest.raises(BadSource, match=said):
            detect(ImportJob(source=str(files / name)))


def test_a_factory_of_a_package_is_found_where_the_user_stands(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").write_text("")
    (tmp_path / "pack/model.py").write_text(
        "import torch\n\ndef make():\n    torch.manual_seed(0)\n    return torch.nn.Linear(4, 3)\n"
    )
    asked = ("pack.model:make", "--input", "x:float32[batch,4]", "--output", "out", "--json", "--quiet")
    ended = subprocess.run(
        [sys.executable, "-m", "tensorquay_convert", "import", *asked],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(ended.stdout)
    assert (told["kind"], told["proof"]["passed"]) == ("torch-factory", True)
    assert told["peak_rss_bytes"] > 100 << 20


def test_a_module_in_hand_is_imported_in_this_process(tmp_path: Path) -> None:
    code = (
        "import torch\nfrom tensorquay_convert import import_model\n"
        "result = import_model(torch.nn.Linear(4, 3), name='m', repository='.', example_inputs=(torch.zeros(2, 4),))\n"
        "print(result.version, result.proof['passed'], result.peak_rss_bytes > 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert ended.stdout.splitlines()[-1:] == ["1 True True"], ended.stderr
    assert (tmp_path / "m/1/model.onnx").is_file()
