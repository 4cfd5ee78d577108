"""The shape vocabulary: what the axes of every tensor in the package are called.

A leading space in the string keeps linters from reading it as a forward reference. The test suite checks the
annotations at run time with jaxtyping's import hook.
"""

from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

Inputs = Float[Tensor, " batch *shape"]
"""What a network takes, a sample a row: tables (batch, feature), or (batch, channel, ...), whatever extents follow.

Attributions have the shape of the inputs.
"""

Images = Float[Tensor, " batch channel height width"]
"""Inputs or attributions that are images, in the network's (normalized) input space."""

Maps = Float[Tensor, " batch *places"]
"""One value a place (feature of a table, time of a series, pixel of an image, voxel of a volume), channels summed."""

Masks = Bool[Tensor, " batch *places"]
"""True where the evidence is."""

Labels = Int64[Tensor, " batch"]
"""Class indices."""

Targets = Shaped[Tensor, " batch *labels"]
"""Class indices as they are given: integers, or the 0.0 and 1.0 or booleans of a binary classifier, (batch,) or (batch,
1); where the labels hold together, (batch, classes)."""

Keys = Int64[Tensor, " batch"]
"""Random keys, one a row (see `functional.random`)."""

Scores = Float[Tensor, " batch"]
"""One score a sample."""

Raw = Float[Tensor, " batch *numbers"]
"""What any network returns: a row a sample."""

Logits = Float[Tensor, " batch classes"]
"""What a classifier returns: one unnormalized score a class."""
