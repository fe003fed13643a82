"""A base path of TensorFlow Serving, as a program: `python base_path.py FOLDER` saves FOLDER/1. Needs TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf

CENTRES = ((5.006, 3.428, 1.462, 0.246), (5.936, 2.77, 4.26, 1.326), (6.588, 2.974, 5.552, 2.026))
"""The mean sepals and petals of three kinds of iris."""


class Flowers(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = tf.Variable(CENTRES, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def serve(self, x):
        apart = tf.reduce_sum((x[:, None, :] - self.centres[None]) ** 2, axis=-1)
        return {"probabilities": tf.nn.softmax(-apart), "species": tf.argmin(apart, axis=-1)}


def main(folder: Path) -> None:
    flowers = Flowers()
    tf.saved_model.save(flowers, str(folder / "1"), signatures={"serving_default": flowers.serve})
    # What TensorFlow Serving replays, and an import leaves alone.
    extra = folder / "1" / "assets.extra"
    extra.mkdir()
    (extra / "tf_serving_warmup_requests").write_bytes(b"")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
