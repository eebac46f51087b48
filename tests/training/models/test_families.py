"""What each family of networks refuses before a run."""

import pytest
from tiny import tiny_pixart_backbone

from training.models.families import FAMILIES


def test_latents_that_the_host_cannot_run_pixart_on_are_refused():
    """The host divides by the rounded number of times that 64 fits into the side: by zero up to 32."""
    network = tiny_pixart_backbone().network
    with pytest.raises(ValueError, match=r"loop.latent_size is 32, .* below 33; give at least .*latent_size=34 "):
        FAMILIES["pixart"].check(network, None, 32)
    FAMILIES["pixart"].check(network, None, 34)
