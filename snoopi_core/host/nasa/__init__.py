"""NASA in the host: attaching it to a model, following a sampling run, and logging what it did."""
