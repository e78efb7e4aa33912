"""Several rooms together, the tree, the package and the manual."""
