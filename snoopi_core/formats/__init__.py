"""File formats: checkpoints, LoRAs, weight names and network configs."""
