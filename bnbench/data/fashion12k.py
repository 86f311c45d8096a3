"""The bundled images: 1,000 training and 200 test images of each Fashion-MNIST class.

They are stored in `bundled/` as two contact sheets that any image viewer opens. Labels follow from
the layout: the classes come in the order of `CLASSES`, each in whole rows.
`scripts/make_bundled_data` makes the sheets from the four original files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bnbench.data.dataset import Dataset, Images
from bnbench.errors import DataError

BUNDLED = Path(__file__).parent / "bundled"
# https://github.com/zalandoresearch/fashion-mnist, "Labels"
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SIDE = 28  # pixels of a tile
COLUMNS = 100  # tiles in a row of a sheet
ROWS_PER_CLASS = {"train": 10, "test": 2}

# sha256 of the decoded gray values of each sheet, row by row: what scripts/make_bundled_data says.
PIXELS_SHA256 = {
    "train": "a559e830f1ef9b7e4e79f76a57bf4814dded62e54a014e791ffc85f4c43ff094",
    "test": "142b02526e9ce037aef4ce6cb2d78629b2dade896e65c5b1fe4f041c3c10ab2e",
}
# The 10,000 bundled training images / 255; tests/data/test_fashion12k.py recomputes them.
MEAN = (0.2866816471588636,)
STD = (0.3540125726600868,)


def load_fashion_mnist_12k() -> Dataset:
    """10,000 training and 2,000 test images, 1×28×28; needs neither network nor torchvision."""
    return Dataset(
        "fashion-mnist-12k", CLASSES, _read_sheet("train"), _read_sheet("test"), MEAN, STD
    )


def sheet_path(part: str) -> Path:
    """The file of the contact sheet of `train` or `test`."""
    return BUNDLED / f"fashion-mnist-12k-{part}.png"


def _read_sheet(part: str) -> Images:
    path = sheet_path(part)
    rows = ROWS_PER_CLASS[part] * len(CLASSES)
    try:
        with Image.open(path) as image:
            sheet = np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"{path} is missing", do="reinstall bnbench") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}", do="reinstall bnbench") from error
    digest = hashlib.sha256(np.ascontiguousarray(sheet).data).hexdigest()
    if digest != PIXELS_SHA256[part]:
        raise DataError(
            f"{path} is damaged: its pixels are not the bundled ones", do="reinstall bnbench"
        )
    tiles = sheet.reshape(rows, SIDE, COLUMNS, SIDE).transpose(0, 2, 1, 3)
    pixels = torch.from_numpy(tiles.reshape(rows * COLUMNS, 1, SIDE, SIDE))
    per_class = ROWS_PER_CLASS[part] * COLUMNS
    return Images(pixels, torch.arange(len(CLASSES)).repeat_interleave(per_class))
