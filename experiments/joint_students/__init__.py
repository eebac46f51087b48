"""Two tiny few-step students of ComfyUI's own classes of joint attention, and what negative prompts do to them."""
