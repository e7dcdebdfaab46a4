"""How right a map is: accuracies and areas from a sample of the ground, with intervals."""
