"""Loading: from checkpoint and LoRA files to the host's MODEL, CLIP and VAE."""
