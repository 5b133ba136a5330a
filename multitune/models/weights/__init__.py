"""Pretrained weights: where they are, whether they are the model's, and whether its processor is."""
