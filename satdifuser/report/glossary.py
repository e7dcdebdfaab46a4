"""What the words and signs of a report mean, in plain words."""

from __future__ import annotations

from collections.abc import Mapping

GLOSSARY: Mapping[str, str] = {
    "model": "An encoder (a network that turns an image into maps of features) with a head and a decoder on it. A "
    "report names each combination.",
    "tap": "A place in a network where a map of features is read, such as the output of a block.",
    "stride": "How many pixels of the input one pixel of a map stands for. Stride 8 is coarser than stride 4.",
    "timestep": "How much noise a diffusion network was told to expect: 0 is a clean image, 999 is noise alone.",
    "bank": "All maps of an image that a head gets: one for each tap and timestep.",
    "head": "What mixes the maps of the bank into one map for each stride. gw, lw and moe are the three that "
    "learn how.",
    "gw": "Global weights: one learned weight for each map, the same for every image and pixel. They sum to 1 "
    "over all maps of all strides.",
    "lw": "Local weights: every pixel has its own weights. They sum to 1 over the maps of its stride; shown is "
    "the mean over pixels and test samples.",
    "moe": "Mixture of experts: a gate sends each image to a few of several small networks. Shown is how much of "
    "what enters them comes from each map; that sums to 1 over the maps of a stride.",
    "equal share": "What a map's weight is if all maps have the same one. 2.00 equal shares is twice that, 1.00 is no "
    "preference.",
    "mIoU": "Mean intersection over union, the score of maps of classes: for each class, the area where map and "
    "truth agree over the area that either calls so; then the mean over classes. 1 is perfect.",
    "budget": "How much of the training labels a model got. Validation and test samples are always all of them.",
    "chance": "What the best answer scores that is the same for every test sample and looks at no image. A model at "
    "this level has learned nothing.",
    "floor": "The best score of the models that have learned nothing of images of the Earth (colours, random "
    "networks, networks of photographs). An encoder earns its place by what it adds to this.",
    "converged": "Training ended by itself, for the score on validation had stopped rising, or there is a formula for "
    "the answer (a fit). Where not, training ended at the most steps allowed, and more steps might raise "
    "the score.",
    "interval": "Where the score would lie, with 95 % confidence, if other test samples had been drawn of the same "
    "kind (bootstrap). It says nothing of other training runs.",
    "±": "The standard deviation of the score over seeds: training runs that differ by chance alone.",
    "≈": "Shares the first place: the highest score, and every score that a test cannot tell from it (adjusted "
    "p of 0.05 or more). That does not mean that they are equal. Where this mark is, no model is bold.",
    "p": "How often a difference this large appears if the answers of two models are swapped at random. It is "
    "adjusted for the number of pairs that were tested (Holm). Below 0.05 is called significant.",
}
OF_DEPTH = ("tap", "stride", "timestep", "bank", "budget", "interval", "≈")  # what a page of probes or likeness says
