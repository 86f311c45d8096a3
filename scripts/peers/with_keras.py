"""The same run with Keras 3 on torch: its fit, on arrays."""

from __future__ import annotations

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import usual
from torchvision import datasets

EPOCHS = 3
keras.utils.set_random_seed(0)


def arrays(train: bool) -> tuple[np.ndarray, np.ndarray]:
    dataset = datasets.FashionMNIST(sys.argv[1], train=train)
    pixels = dataset.data.numpy()[..., None].astype(np.float32) / 255
    return (pixels - usual.MEAN) / usual.STD, dataset.targets.numpy()


def block(width: int, stride: int) -> list:
    he = keras.initializers.HeNormal()
    return [
        keras.layers.Conv2D(
            width, 3, stride, padding="same", use_bias=False, kernel_initializer=he
        ),
        keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
        keras.layers.ReLU(),
    ]


x, y = arrays(train=True)
test_x, test_y = arrays(train=False)
order = np.random.default_rng(0).permutation(len(x))
val, train = np.split(order, [usual.VALIDATION])
train = train[: len(train) // usual.BATCH * usual.BATCH]  # as drop_last: whole batches
steps = EPOCHS * len(train) // usual.BATCH
warmup = int(usual.WARMUP * steps)
model = keras.Sequential([keras.Input((28, 28, 1))])
for width, stride in [(8, 1), (8, 1), (16, 2), (16, 1), (32, 2), (32, 1)]:
    for layer in block(width, stride):
        model.add(layer)
model.add(keras.layers.GlobalAveragePooling2D())
model.add(keras.layers.Dense(10))
rate = keras.optimizers.schedules.CosineDecay(
    0.0, steps - warmup, warmup_target=0.1, warmup_steps=warmup
)
model.compile(
    optimizer=keras.optimizers.SGD(rate, momentum=0.9),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(
    x[train],
    y[train],
    batch_size=usual.BATCH,
    epochs=EPOCHS,
    verbose=0,
    validation_data=(x[val], y[val]),
    validation_batch_size=usual.EVALUATION_BATCH,
    callbacks=[keras.callbacks.CSVLogger("log.csv")],
)
model.save_weights("last.weights.h5")
_, right = model.evaluate(test_x, test_y, batch_size=usual.EVALUATION_BATCH, verbose=0)
print({"steps": int(model.optimizer.iterations.value), "accuracy": right})
