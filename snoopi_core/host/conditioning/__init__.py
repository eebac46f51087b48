"""What a NASA Apply node is given, read and checked: negative prompt, mask and time window."""
