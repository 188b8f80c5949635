"""synthpipe inside BasicSR: a dataset type, model types, a perceptual loss, and a training entry with exact resume.

Two lines before BasicSR's own ``train_pipeline`` are enough::

    import synthpipe.basicsr_plugin
    synthpipe.basicsr_plugin.register()

after which option files may say ``type: SynthPipeDataset``, ``model_type: SynthPipeESRGANModel`` (or ``...SRModel``,
``...SRGANModel``) and ``type: SynthPipePerceptualLoss``.  ``python -m synthpipe.basicsr_plugin.train -opt x.yml`` does
this, takes BasicSR's flags, and continues the stream exactly with ``--auto_resume``.
"""

from __future__ import annotations

from synthpipe.basicsr_plugin import compat

__all__ = ["register"]


def register() -> None:
    """Make BasicSR importable (:mod:`synthpipe.basicsr_plugin.compat`) and add our types to its registries.

    Safe to call again.

    Raises:
        SynthPipeError: BasicSR or torchvision is not installed, or another package took one of our names.
    """
    compat.prepare()
    # Only now: these modules import BasicSR.
    from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

    from synthpipe.basicsr_plugin import losses, model
    from synthpipe.basicsr_plugin.dataset import SynthPipeDataset
    from synthpipe.errors import SynthPipeError

    for registry, entry in (
        (DATASET_REGISTRY, SynthPipeDataset),
        (MODEL_REGISTRY, model.SynthPipeSRModel),
        (MODEL_REGISTRY, model.SynthPipeSRGANModel),
        (MODEL_REGISTRY, model.SynthPipeESRGANModel),
        (LOSS_REGISTRY, losses.SynthPipePerceptualLoss),
    ):
        name = entry.__name__
        if name not in registry:
            registry.register(entry)
        elif registry.get(name) is not entry:
            raise SynthPipeError(f"BasicSR's registry already holds another {name!r}: {registry.get(name)!r}")
