"""Pretrained weights: whether they are the model's."""
