"""IDX files, as of MNIST and Fashion-MNIST, plain or gzipped, read without torchvision.

Format: http://yann.lecun.com/exdb/mnist/ ("The IDX file format").
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# sha256 of the unpacked originals of Fashion-MNIST. Debian's .gz differ from Zalando's in their
# gzip headers (no name, no time), so the md5 sums that torchvision knows do not hold for them.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, sha256: str | None = None) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file; gzipped when its name ends in .gz.

    Raises OSError when it cannot be read, ValueError when it is damaged or its unpacked bytes
    have another sha256 than the one given.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"not a whole gzip file ({error})") from error
    if len(data) < 4 or data[:3] != bytes((0, 0, _UNSIGNED_BYTE)):
        raise ValueError("not an IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError("cut off within its header")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(f"{len(data) - start:,} bytes of data instead of {math.prod(shape):,}")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("its contents are not the original ones (sha256)")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
