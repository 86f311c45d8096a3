"""Datasets, splits, resident batches, augmentation. Of bnbench it imports `errors` alone.

- `dataset`: `Images` and `Dataset`, the types that everything here makes or takes; refusal of what
  does not fit into memory; the bundled images in `bundled/`
- `torchvision_sets`: what torchvision can fetch; `image_folder`: a user's own; `synthetic`:
  generated; `prepared`: decoded arrays kept for the next time
- `batches`: stratified splits; batch k as a function of k; flip and crop; evaluation chunks
"""
