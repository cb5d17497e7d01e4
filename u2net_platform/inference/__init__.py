"""From a trained network to labels on the grid of the image that came in."""
