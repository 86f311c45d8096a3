"""Datasets, and how images are split, ordered and batched."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field

from bnbench.config.schema.base import Block, Count, FunctionTarget, NonNegative, Seed, Size, Text


class ImageData(Block):
    """Keys that every dataset has."""

    root: str | None = Field(
        None, description="where the data is stored; default: the user's cache folder"
    )
    download: bool = Field(True, description="fetch missing files (torchvision's datasets)")
    train_size: Count | None = Field(
        None, description="a stratified subset of the training images, drawn once per seed"
    )
    validation_size: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        1000,
        description="images held out of the training images; 0: none, so nothing can be chosen",
    )
    batch_size: Count = Field(64, description="examples per optimizer step")
    eval_batch_size: Count = Field(128, description="examples per forward pass of an evaluation")
    drop_last: bool = Field(True, description="leave out an epoch's last, smaller batch")
    order: Literal["shuffled", "class-sorted", "class-sorted-batches"] = Field(
        "shuffled",
        description="deliberately non-iid: class-sorted, each epoch; class-sorted-batches, the "
        "images of each batch, which norm.batch_size then splits into batches of few classes",
    )
    augment: Literal["none", "flip-crop"] = Field(
        "none", description="flip-crop: random horizontal flip and a crop after 4 pixels of padding"
    )
    inputs: Literal["standardized", "standardized-pixels", "unit"] = Field(
        "standardized",
        description="by the training images: each channel has mean 0 and deviation 1, or each "
        "pixel has; unit: from 0 to 1, as stored",
    )


class Fashion12kData(ImageData):
    """1,000 training and 200 test images of each Fashion-MNIST class; bundled, works offline."""

    dataset: Literal["fashion-mnist-12k"] = "fashion-mnist-12k"


class TorchvisionData(ImageData):
    """A dataset that torchvision knows how to fetch."""

    dataset: Literal["fashion-mnist", "mnist", "kmnist", "cifar10", "cifar100", "svhn"]


class ImageFolderData(ImageData):
    """Images of your own: `root/train/<class>/*` and `root/test/<class>/*`."""

    dataset: Literal["image-folder"]
    root: str = Field(description="folder that holds train/<class>/ and test/<class>/")
    image_size: Size = Field(
        description="side in pixels; images are resized (short side) and center-cropped"
    )
    channels: Literal[1, 3] = Field(3, description="3: color, 1: grayscale")


class SyntheticData(ImageData):
    """Generated images: a random pattern per class plus noise. For tests and timing."""

    dataset: Literal["synthetic"]
    train_images: Count = Field(2000, description="training images, before the hold-out")
    test_images: Count = Field(500, description="test images")
    classes: Annotated[int, Field(ge=2, le=100_000)] = Field(10, description="number of classes")
    channels: Size = Field(1, description="image channels")
    image_size: Size = Field(28, description="side in pixels")
    noise: NonNegative = Field(0.5, description="standard deviation of the noise; a pattern has 1")
    data_seed: Seed = Field(0, description="which images are generated, for all seeds alike")


class CustomData(ImageData):
    """Images that a function of your own returns, as (train, test) or (train, test, class names).

    Each is a dataset with a length and items (image, label), such as torchvision's ImageFolder or
    Hugging Face's `datasets`, or a pair (images, labels) of arrays or tensors. It is called once as
    function(**options); the images are kept in the cache folder until the file's code, the options
    or the content of `files` change. Pixels are uint8, or floats, which are taken as they are.
    """

    dataset: Literal["custom"]
    target: FunctionTarget = Field(description="path/to/file.py:function")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments")
    files: Annotated[tuple[Text, ...], Field(max_length=1000)] = Field(
        (),
        description="files and folders that the function reads: what is in them is part of the "
        "run's identity",
    )


DataConfig: TypeAlias = Annotated[
    Fashion12kData | TorchvisionData | ImageFolderData | SyntheticData | CustomData,
    Discriminator("dataset"),
]
