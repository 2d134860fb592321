"""What the experiments about boxes share: the walk of boxes by the gradient of a loss, and its page."""
