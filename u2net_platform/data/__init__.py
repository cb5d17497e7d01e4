"""From a folder of volumes to patches that a network can learn from."""
