"""The end of a run that was asked for."""

import threading

import lightning

from ..recipe import AnyRecipe
from .base import StepCallback, looks


class Stopping(StepCallback):
    """Ends the run when the event is set, in all processes at the same step.

    To agree costs a message: it is asked for when the curves get an entry.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def after_step(self, trainer: lightning.Trainer, recipe: AnyRecipe) -> None:
        """See `StepCallback`."""
        if looks(recipe) and trainer.strategy.reduce_boolean_decision(self._stop.is_set(), all=False):
            trainer.should_stop = True
