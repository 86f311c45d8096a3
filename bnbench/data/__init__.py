"""Datasets, splits, batches, augmentation. It imports nothing of bnbench that knows networks.

- `dataset`: `Images` and `Dataset`, the types that everything here makes or takes; refusal of what
  does not fit into memory; the bundled images in `bundled/`
- `torchvision_sets`: what torchvision can fetch; `image_folder`: a folder of a user's own; `own`:
  what a user's function returns; `synthetic`: generated; `prepared`: decoded arrays kept for the
  next time, in memory or mapped
- `in_order`: items of a user's dataset, decoded by several processes where that takes long
- `batches`: stratified splits; batch k as a function of k; flip and crop; evaluation chunks
"""
