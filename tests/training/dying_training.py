"""`nearsight train` in a process that kills itself in a stage of its work; run as a script."""

import os
import signal
import sys
from dataclasses import replace
from importlib import import_module

from nearsight.cli.main import cli

#: What the process does not live to do: the module, the name in it, and how often it may do so before.
STAGES = {
    "embedding": ("nearsight.training.feature_embedder", "replace", 5),
    "feature maps": ("nearsight.training.backbone.sources", "exported", 1),
    "an epoch": ("nearsight.training.backbone.optimization", "write_checkpoint", 1),
    "the second training": ("nearsight.training.backbone.optimization", "write_checkpoint", 1),
    "export": ("nearsight.training.model_folder", "open", 2),
}


def dying(function, n_times):
    """Return a function that kills its process instead of another call after the first `n_times`."""
    left = [n_times]

    def stopped(*args, **kwargs):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return function(*args, **kwargs)

    return stopped


if __name__ == "__main__":
    # Here, since it needs PyTorch: the module is imported where tests are collected, too.
    from nearsight.training.backbone import depth, sources

    stage, *words = sys.argv[1:]
    # So few images prove nothing; and small parts, so that each stage has several.
    depth.is_better = lambda new, old: True
    depth.SCHEDULES["last"] = replace(depth.SCHEDULES["last"], epochs=2, batch_size=4, shares=(1.0,))
    sources._N_AT_ONCE = 8
    if stage:
        name, attribute, n_times = STAGES[stage]
        module = import_module(name)
        setattr(module, attribute, dying(getattr(module, attribute, open), n_times))
    cli(words)
