"""Bias, leaky ReLU and pixel norm in one operation: its kernels, its gradients, where it is used."""
