"""Ready-made networks."""

from .convolutional import ConvNet as ConvNet
from .fully_connected import ACTIVATIONS as ACTIVATIONS
from .fully_connected import NORMALIZATIONS as NORMALIZATIONS
from .fully_connected import FullyConnectedNet as FullyConnectedNet
from .network import OUTPUTS as OUTPUTS
