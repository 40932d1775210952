"""Each layer, loss and optimizer as instructions: what it does in a compiled training step.

One function for each type. A layer's gets the program and its input, appends the forward's
instructions, and gives its output and a function that appends the backward's. Types that are not
in the tables here, subclasses among them, make the step run layer by layer as before.
"""

from .layers import lower_layer
from .losses import lower_loss
from .updates import can_update, lower_update

__all__ = ["can_update", "lower_layer", "lower_loss", "lower_update"]
