"""Networks that take their normalization as an argument, one file a family.

`plain`: stages of convolutions; fully connected layers. `resnet`: residual blocks, post- and
pre-activation. `torchvision_classifier`, `timm_classifier`: networks of these libraries, as they
are built. `swap`: another norm in the place of each BatchNorm. `recipe`: how norm, activation and
placement are handed to a network; initial weights, the same in all setups of a seed; which parts
of a network are its norms, and training them alone.
"""
