"""Parts of the whole by themselves, with the same bytes: clients without effect, the pipeline without broker."""

from experiment.layers.clients import LayerError, Ran, run_clients
from experiment.layers.messages import write_messages
from experiment.layers.raw_clients import raw_client
from experiment.layers.raw_modes import AS_TANDEM, MODES, Mode

__all__ = [
    "AS_TANDEM",
    "MODES",
    "LayerError",
    "Mode",
    "Ran",
    "raw_client",
    "run_clients",
    "write_messages",
]
