"""Who runs which block of the documents: by default every block is run, in its page's order, by test_pages.py.

What is here are the exceptions, and what lies on the reader's desk before a page begins. A page or a block that is new
needs nothing here unless it needs something there.
"""

from __future__ import annotations

import copy
import enum
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from tests.docs.desk import Desk
from tests.docs.markdown import SHELL, Block
from tests.docs.migrants import beside_tensorflow_serving, beside_torchserve, beside_triton
from tests.support.pki import Authority

RUNNABLE = SHELL | {"python"}


class Runner(enum.Enum):
    """Which run of the tests runs a block."""

    NOBODY = "nobody: it begins with a mark, and only its words are checked"
    TEST = "make test"
    LONG = "make test-full"
    FRAMEWORKS = "make test, beside the frameworks"
    CONTAINER = "make test-container"


CONTAINER_PAGES = {"docs/container.md": "tests/container/test_pages.py"}
"""Pages that build and run images → the module that runs them; its `BLOCKS` are what it runs."""

FRAMEWORKS = {
    "README.md": ("tensorquay import",),
    "docs/import.md": ("tensorquay import", "import_model("),
    # All of it: each step goes on with what the import made.
    "docs/migrate-from-tf-serving.md": ("",),
    "docs/migrate-from-torchserve.md": ("",),
    "docs/quickstart.md": ("tensorquay import", "skops"),
    "model_repo/README.md": ("train_digits.py",),
}
"""Page → what blocks have in them that need PyTorch or the like."""

FRAMEWORKS_LONG = frozenset(
    {"README.md", "model_repo/README.md", "docs/migrate-from-tf-serving.md", "docs/migrate-from-torchserve.md"}
)
"""Those of them that take more than some seconds: they train, try variants by turns, or start frameworks often."""

LONG = {
    "docs/quickstart.md": ("tensorquay optimize",),
    "docs/optimize.md": ("tensorquay optimize", "optimize_model(", "tensorquay profile"),
}
"""Page → what blocks have in them that take more than some seconds."""


def runner(block: Block) -> Runner:
    """Who runs it."""
    if block.mark:
        return Runner.NOBODY
    if block.page in CONTAINER_PAGES:
        return Runner.CONTAINER
    for who, table in ((Runner.FRAMEWORKS, FRAMEWORKS), (Runner.LONG, LONG)):
        if any(each in block.text for each in table.get(block.page, ())):
            return who
    return Runner.TEST


def _serve_the_shipped(desk: Desk) -> None:
    desk.serve("model_repo")


def _a_model_of_ones_own(desk: Desk) -> None:
    (desk.folder / "models").mkdir()
    shutil.copytree(desk.folder / "model_repo" / "digits" / "1", desk.folder / "models" / "my_model" / "1")


def _images(desk: Desk) -> None:
    """Handwritten digits as the shipped model reads them, and what they are."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    np.savez(desk.folder / "images.npz", image=pixels[:400].astype(np.float32).reshape(-1, 1, 8, 8))
    np.save(desk.folder / "labels.npy", labels[:400])


def _exported_program(desk: Desk) -> None:
    """model.pt2: a PyTorch model that reads digits, and some of them."""
    import torch
    from tests.convert.torch_zoo import digits, trained

    images, labels = digits()
    np.savez(desk.folder / "samples.npz", image=images[1200:])
    np.save(desk.folder / "labels.npy", labels[1200:])
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        copy.deepcopy(trained()).eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes={"image": {0: batch}}
    )
    torch.export.save(program, desk.folder / "model.pt2")


def _exported_program_beside_a_model(desk: Desk) -> None:
    _a_model_of_ones_own(desk)
    _exported_program(desk)


def _arrays(desk: Desk) -> None:
    """The shipped models, and the two inputs of `simple`."""
    _serve_the_shipped(desk)
    for name in ("a", "b"):
        np.save(desk.folder / f"{name}.npy", np.ones((1, 16), np.int32))


def _certificates(desk: Desk) -> None:
    """The shipped models, and the files of `Tls(…)`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: the page's examples were NOT tried")
    _serve_the_shipped(desk)
    authority = Authority(desk.folder.parent / "authority")
    client = authority.issue("client")
    shutil.copy(authority.certificate, desk.folder / "ca.pem")
    shutil.copy(client.certificate, desk.folder / "client.pem")
    shutil.copy(client.key, desk.folder / "client.key")


PREPARED: dict[tuple[str, Runner], Callable[[Desk], None]] = {
    ("README.md", Runner.TEST): _a_model_of_ones_own,
    ("docs/client.md", Runner.TEST): _certificates,
    ("docs/migrate-from-tf-serving.md", Runner.FRAMEWORKS): beside_tensorflow_serving,
    ("docs/migrate-from-torchserve.md", Runner.FRAMEWORKS): beside_torchserve,
    ("docs/migrate-from-triton.md", Runner.TEST): beside_triton,
    ("model_repo/README.md", Runner.TEST): _serve_the_shipped,
    ("docs/reference/cli.md", Runner.TEST): _arrays,
    ("docs/optimize.md", Runner.LONG): _images,
    ("README.md", Runner.FRAMEWORKS): _exported_program_beside_a_model,
    ("docs/import.md", Runner.FRAMEWORKS): _exported_program,
}
"""Page and runner → what lies ready, or runs already, when the first of those blocks is run."""

PRINTS: dict[str, dict[str, str]] = {
    "README.md": {
        "--image docs/images/digit.png": "6",
        "tritonclient.http": "2 2 2 2 2 2 2 2 2 2 2 2 2 2 2 2",
        "from tensorquay_client": "(3, 10)",
    },
}
"""Page → what a block has in it → what it must print, where the page says so in words."""
