"""Tensors in, tensors out: the formulae of the papers, each as a function that needs nothing but PyTorch."""
