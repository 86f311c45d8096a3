"""Datasets, splits, resident batches, augmentation. Imports only `bnbench.errors`.

- `dataset`: `Images` and `Dataset`, the types that everything here makes or takes; `moments`
- `fashion12k`: the bundled images in `bundled/`; `torchvision_sets`: what torchvision can fetch;
  `image_folder`: a user's own; `synthetic`: generated
- `idx`: reader of MNIST's file format; `prepared`: decoded arrays kept for the next time;
  `memory`: refusal of what does not fit
- `splits`: stratified hold-out and subsets; `batches`: batch k as a function of k, evaluation
  chunks, standardization; `augment`: flip and crop
"""

from bnbench.data.batches import Batches, Standardize, chunks
from bnbench.data.dataset import Dataset, Images
from bnbench.data.fashion12k import load_fashion_mnist_12k
from bnbench.data.image_folder import load_image_folder
from bnbench.data.splits import split, subset
from bnbench.data.synthetic import generate_synthetic
from bnbench.data.torchvision_sets import load_torchvision

__all__ = [
    "Batches",
    "Dataset",
    "Images",
    "Standardize",
    "chunks",
    "generate_synthetic",
    "load_fashion_mnist_12k",
    "load_image_folder",
    "load_torchvision",
    "split",
    "subset",
]
