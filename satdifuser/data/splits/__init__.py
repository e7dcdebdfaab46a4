"""Which samples are for training, validation and testing, and how many of them."""
