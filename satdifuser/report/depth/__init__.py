"""What is known where: probes over depth, likeness of two networks, what finetuning moved, decoders against depth."""
