"""DeFlow for use alone: the maps of the trained model, several times faster (design decision 8).

``steps`` folds and shares, ``first_convs`` with ``winograd`` and ``upsampled_conv`` takes the many convolutions of the
features, ``encoder`` the conditioning network, ``narrow_conv`` convolutions with few outputs; ``model`` puts them
together.  ``tools/bench/generator.py`` measures it against the plain model.
"""

from synthpipe.flows.frozen.model import EncodedImages, FrozenDeFlow

__all__ = ["EncodedImages", "FrozenDeFlow"]
