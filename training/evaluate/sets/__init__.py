"""Folders of images with a manifest, and files of results: what generators and judges exchange."""
