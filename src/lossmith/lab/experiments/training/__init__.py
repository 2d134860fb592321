"""What the experiments that train share: how a claim is judged by paired trials, and parts of the built-in sets."""
