"""Many scenes: which there are, who does which, and one manifest of what is done."""
