"""Where in a network the knowledge is, and what finetuning moves: probes and likeness, of any bank of features."""
