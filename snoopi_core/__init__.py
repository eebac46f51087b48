"""SNOOPI as plain tensors and files, and (in host/) what connects it to ComfyUI."""
